//! Positions, attention and rotation.

use super::{E2_LLM, END_PROMPT, LONG_RECIPE, NATURAL, POSE, RETRIEVAL, Resolver};
use crate::config::choices::Attention;
use crate::config::run::PositionSettings;
use crate::config::text::Source;
use crate::config::{ConfigError, Problem, defaults, presets};
use crate::data::Attend;
use crate::data::attend::Group;
use crate::data::synthetic::{STAGES, Stage};
use crate::io::hf_config;
use crate::model::RopeScaling;
use crate::model::rope::RopeKind;
use crate::positions::{self, MethodArgs, Spec, Words};
use crate::units::format_length;

impl Resolver<'_> {
    pub(super) fn positions(&mut self) -> (PositionSettings, Option<ConfigError>) {
        let (s, config) = (self.settings, &self.model.config);
        let (context, init) = (config.context, s.init.is_some());
        let target = self.target();
        let extends = target > context;

        let stage = self.sources().iter().find_map(Source::stage);
        let document = stage.map_or(usize::MAX, |stage| stage.length);
        let (row, chosen) = self.row();
        let seq_len = if chosen { row } else { row.min(document) };
        let method = s.positions.clone().unwrap_or_else(|| Spec::only(if seq_len < target && extends { POSE } else { NATURAL }));
        let given = [(RETRIEVAL, s.retrieval), (NATURAL, s.contiguous)];
        let given: Vec<_> = given.into_iter().filter_map(|(name, share)| Some((name, share?.0))).collect();
        let taken: f64 = given.iter().map(|(_, share)| share).sum();
        self.need(taken <= 1.0, "contiguous", "shares that are at most 100% together", format!("{}%", 100.0 * taken));
        let is_given = |method: &str| given.iter().any(|(name, _)| *name == method);
        if taken < 1.0 && method.shares().iter().all(|share| is_given(share.method)) {
            let key = if s.retrieval.is_some() { "retrieval" } else { "contiguous" };
            let what =
                format!("expected 100%, because --positions {method} has no other method for the rest, got {}%", 100.0 * taken);
            self.problem(key, what, "leave it out, or name the method of the other rows with --positions");
        }
        let method = if given.is_empty() { method } else { method.with(&given) };
        let rope = self.rope(&method, extends);
        let mut not_longer = None;
        if !extends && !(rope == RopeKind::Keep && (init || method.is(NATURAL))) {
            let from = match s.init.as_ref() {
                Some(file) => file.display().to_string(),
                None => format!("{} (max_position_embeddings {context}; rope {})", self.source.config_file(), config.rope),
            };
            not_longer = Some(ConfigError::NotLonger { target, context, from });
        }

        self.need(seq_len >= 2, "seq_len", "at least 2 tokens", seq_len);
        if seq_len > target {
            let what = format!("expected at most the target of {target} tokens, got {seq_len}");
            self.problem("seq_len", what, format!("use --seq-len {} or less, or a longer --target", format_length(target)));
        }
        if let Some(stage) = stage.filter(|stage| seq_len > stage.length) {
            let what = format!("expected at most the {} tokens of a document of {stage}, got {seq_len}", stage.length);
            let longer = STAGES.iter().filter(|other| other.length >= seq_len).min_by_key(|other| other.length);
            let longer = longer.map_or("FILE".to_owned(), Stage::to_string);
            let help =
                format!("use --seq-len {} or less, or longer documents, such as --data {longer}", format_length(stage.length));
            self.problem("seq_len", what, help);
        }
        self.without_effect(&method);
        if method.has(E2_LLM) && rope != RopeKind::Linear {
            self.problem(
                "rope",
                format!("expected linear with --positions e2-llm, got {rope}"),
                "E2-LLM trains linear scales: leave out rope",
            );
        }
        let max_scale = method.has(E2_LLM).then(|| s.e2_max_scale.unwrap_or(target.div_ceil(context.max(1))));
        let weight = s.end_prompt_weight.unwrap_or(defaults::END_PROMPT_WEIGHT);
        self.need(weight.is_finite() && weight >= 0.0, "end_prompt_weight", "a number from 0", weight);
        let args = MethodArgs {
            chunks: s.pose_chunks.unwrap_or(defaults::POSE_CHUNKS),
            max_scale,
            select_rest: s.select_rest.map_or(defaults::SELECT_REST, |share| share.0),
            end_prompt_weight: weight as f32,
            ..MethodArgs::new(target, context, seq_len)
        };
        if (2..=target).contains(&seq_len)
            && let Err(error) = positions::build(&method, &args, &Words::default())
        {
            self.problems.push(Problem::from_error(&error));
        }
        let usual_prompt = if self.builtin() { defaults::EOS } else { defaults::END_PROMPT };
        let end_prompt = s.end_prompt.clone().unwrap_or_else(|| usual_prompt.to_owned());

        let attend = self.attend(seq_len);
        let target_rope = match config.rope.extended(rope, context, target, config.head_dim) {
            Ok(extended) => {
                // Found out now, not by the first checkpoint.
                if let Err(error) = hf_config::check_rope(&extended, target) {
                    let length = format_length(target);
                    let what = format!("{rope} for a target of {length} does not fit into config.json: {error}");
                    self.problem("rope", what, "choose a smaller --target, or another --rope");
                }
                extended
            }
            Err(error) => {
                if method.has(E2_LLM) {
                    let what =
                        format!("e2-llm trains linear scales of a plain or linear rotation, and the model has {}", config.rope);
                    self.problem("positions", what, "take another method, or a base that is not scaled otherwise");
                } else if not_longer.is_none() {
                    self.problems.push(Problem::from_error(&error));
                }
                config.rope.clone()
            }
        };
        let base_rope = config.rope.clone();
        (
            PositionSettings {
                method,
                args,
                end_prompt,
                select: s.select.clone(),
                target,
                context,
                attend,
                rope,
                base_rope,
                target_rope,
            },
            not_longer,
        )
    }

    /// Tokens of a row, and whether somebody chose them. Where nobody did, a row has a share of the target, which `docs/study.md` measures to
    /// be worth its cost. With `--method` it has the base's context, as in the papers; E2-LLM would train longer rows at positions that its
    /// smallest scales do not bring into the context, and EndPrompt is about short text.
    pub(super) fn row(&self) -> (usize, bool) {
        let (s, context, target) = (self.settings, self.model.config.context, self.target());
        let by_preset = || presets::seq_len(s.method?.preset, target);
        if let Some(chosen) = s.seq_len.map(|l| l.0).or_else(by_preset) {
            return (chosen, true);
        }
        let within_context = |spec: &Spec| spec.has(E2_LLM) || spec.has(END_PROMPT);
        let share = match s.method.is_some() || s.positions.as_ref().is_some_and(within_context) {
            true => 0,
            false => presets::share_of(target).min(self.model.by_size(defaults::MAX_SHARE)),
        };
        (context.min(defaults::MAX_SEQ_LEN).max(share).min(target), false)
    }

    /// The rotation's kind: the user's, else the preset's where the model is not scaled in another way, else what suits the model.
    fn rope(&self, method: &Spec, extends: bool) -> RopeKind {
        let base = &self.model.config.rope;
        let plain = matches!(base.scaling, RopeScaling::Default | RopeScaling::Dynamic { .. });
        let of_preset = self.settings.rope.filter(|kind| plain || [RopeKind::Keep, base.natural_kind()].contains(kind));
        self.given.rope.or(of_preset).unwrap_or_else(|| match () {
            () if method.has(E2_LLM) => RopeKind::Linear,
            () if self.settings.init.is_some() && !extends => RopeKind::Keep,
            () => base.natural_kind(),
        })
    }

    /// Settings of methods that the run does not have.
    fn without_effect(&mut self, method: &Spec) {
        let given = self.given;
        for (key, given, with) in [
            ("pose_chunks", given.pose_chunks.is_some(), POSE),
            ("e2_max_scale", given.e2_max_scale.is_some(), E2_LLM),
            ("e2_scale_per", given.e2_scale_per.is_some(), E2_LLM),
            ("select", given.select.is_some(), LONG_RECIPE),
            ("select_rest", given.select_rest.is_some(), LONG_RECIPE),
            ("end_prompt", given.end_prompt.is_some(), END_PROMPT),
            ("end_prompt_weight", given.end_prompt_weight.is_some(), END_PROMPT),
        ] {
            self.only_with(given && !method.has(with), key, &format!("--positions {with}"));
        }
    }

    fn attend(&mut self, seq_len: usize) -> Attend {
        let s = self.settings;
        if s.attention != Some(Attention::S2) {
            self.only_with(self.given.s2_group.is_some(), "s2_group", "--attention s2");
            return Attend::Full;
        }
        let group = s.s2_group.unwrap_or(Group::Parts(defaults::S2_GROUPS));
        if let Group::Tokens(n) = group {
            self.need((2..=seq_len.max(2)).contains(&n), "s2_group", &format!("2 to {seq_len} tokens, the row's length"), n);
        }
        if let Group::Parts(n) = group {
            let expected = format!("at most half as many groups as the {seq_len} tokens of a row");
            self.need(n <= seq_len.max(2) / 2, "s2_group", &expected, group);
        }
        Attend::Shifted { group }
    }
}
