//! Settings become a run: defaults, precedence, checks, and the way back to a file.

use std::path::{Path, PathBuf};

use ltrain::config::text::{List, ModelSource, Source};
use ltrain::config::{ConfigError, ModelInfo, RunConfig, Settings, defaults, file};
use ltrain::data::attend::Group;
use ltrain::data::{Attend, Holdout, Packing};
use ltrain::error::{Error, Explain, Shown};
use ltrain::model::rope::RopeKind;
use ltrain::model::{ModelConfig, Recompute, RopeScaling};
use ltrain::optim::Shape;
use ltrain::positions::Words;
use ltrain::train::TrainMode;

fn tiny() -> ModelInfo {
    ModelInfo::read(&Settings::default()).unwrap()
}

/// A model of 8 B parameters and 8192 tokens that does not exist.
fn large() -> ModelInfo {
    let config = ModelConfig {
        vocab: 128_256,
        hidden: 4096,
        ffn: 14_336,
        layers: 32,
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
        tied: false,
        context: 8192,
        ..tiny().config
    };
    ModelInfo::new("large", config)
}

fn settings(assignments: &[&str]) -> Settings {
    let assignments: Vec<_> = assignments.iter().map(|a| (*a).to_string()).collect();
    Settings::assigned(&assignments).unwrap()
}

/// Resolves with an output folder, so that what is written down is the whole configuration.
fn resolve(model: &ModelInfo, assignments: &[&str]) -> Result<RunConfig, ConfigError> {
    RunConfig::resolve(&settings(assignments).over(settings(&["out=/runs/x"])), model)
}

fn run(model: &ModelInfo, assignments: &[&str]) -> RunConfig {
    resolve(model, assignments).unwrap_or_else(|e| panic!("{assignments:?}: {}", Shown(&e.into())))
}

fn shown(error: ConfigError) -> String {
    Shown(&Error::from(error)).to_string()
}

/// The keys that the problems are about.
fn problem_keys(result: Result<RunConfig, ConfigError>) -> Vec<String> {
    match result {
        Err(ConfigError::Problems(problems)) => {
            problems.into_iter().map(|p| p.key.unwrap_or_else(|| p.what.split(':').next().unwrap().to_owned())).collect()
        }
        other => panic!("expected problems, got {other:?}"),
    }
}

#[test]
fn the_builtin_model_needs_no_settings() {
    let config = run(&tiny(), &[]);
    assert_eq!(config.model.source, ModelSource::Builtin);
    assert_eq!((config.positions.context, config.positions.target, config.data.seq_len), (256, 2048, 614));
    assert_eq!((config.positions.method.name(), config.positions.rope), ("pose", RopeKind::Yarn));
    assert_eq!(config.data.train[0].to_string(), defaults::BUILTIN_DATA);
    assert_eq!(
        (config.train.mode, config.train.lora.is_none(), config.train.recompute),
        (TrainMode::Full, true, Recompute::Nothing)
    );
    assert_eq!((config.train.steps, config.tokens_per_step()), (defaults::BUILTIN_STEPS, 6 * 614));
    assert_eq!((config.optim.lr, config.optim.shape), (defaults::LR_BUILTIN, Shape::Cosine));
    assert_eq!(config.eval.at, [256, 512, 1024, 2048]);
    assert!(config.eval.control);
    assert_eq!(config.positions.plan(&Words::default()).unwrap().span_rows(), 5);
    assert_eq!(config.positions.training_rope(), &config.positions.target_rope);
}

#[test]
fn a_large_model_gets_adapters_and_needs_text() {
    let config = run(&large(), &["model=/m", "data=/text"]);
    assert_eq!((config.positions.target, config.data.seq_len), (4 * 8192, 9830));
    let lora = config.train.lora.as_ref().unwrap();
    assert_eq!((config.train.mode, lora.rank, lora.alpha, lora.targets.len()), (TrainMode::Lora, 16, 32.0, 7));
    assert_eq!((config.optim.lr, config.tokens_per_step(), config.train.recompute), (1e-4, 7 * 9830, Recompute::Layers));
    assert!(!config.eval.control);
    assert_eq!(problem_keys(resolve(&large(), &["model=/m"])), ["data"]);

    let full = run(&large(), &["model=/m", "data=/text", "train=full"]);
    assert_eq!((full.optim.lr, full.optim.lr_embed), (2e-5, 2e-5));
    let plus = run(&large(), &["model=/m", "data=/text", "train=lora+"]);
    assert!((plus.optim.lr_embed - 0.1 * plus.optim.lr).abs() < 1e-12);
}

/// Settings that reach every branch of the resolution.
const VARIANTS: &[&[&str]] = &[
    &[],
    &["train=lora", "rank=4", "rslora=true", "lora_targets=q,v", "alpha=0.1"],
    &["train=lora+", "lr_embed=3e-6", "warmup=3%"],
    &["positions=uniform", "rope=theta:80000", "schedule=linear", "min_lr_ratio=0"],
    &["method=e2-llm", "e2_max_scale=5", "eval=none"],
    &["method=full-length", "data=synthetic:long-2048", "micro_batch=1", "clip=inf", "betas=0.8,0.99"],
    &["attention=s2", "s2_group=100", "eval=ppl", "eval_at=300,1k", "eval_every=10"],
    &["positions=natural", "rope=keep", "target=256", "control=true"],
    &["data=[\"/a b\", \"/c\"]", "eval_data=/d", "columns=text=body", "cache=/e", "no_pack=true"],
    &["gpus=1", "mem_limit=80g", "check_kernels=true"],
    &["val=64", "threads=3", "resume=/runs/y", "overwrite=true", "save_dtype=bf16", "log_every=7", "nan=skip"],
    &["init=/m/config.json", "tokenizer=/t", "data=/a"],
    &["model=/m", "data=/a", "val=none", "export=none", "progress=quiet", "recompute=layers"],
];

#[test]
fn a_configuration_written_and_read_back_is_the_same() {
    for assignments in VARIANTS {
        let first = run(&tiny(), assignments);
        let text = first.to_toml();
        let again = Settings::parse(&text, Path::new("/elsewhere/ltrain.toml")).unwrap();
        assert_eq!(RunConfig::resolve(&again, &tiny()).unwrap(), first, "{assignments:?}\n{text}");
        // Other defaults must not show through: the file says everything that was decided.
        assert_eq!(RunConfig::resolve(&again, &tiny()).unwrap().to_toml(), text);
    }
}

#[test]
fn the_default_that_the_help_shows_is_the_default() {
    let with = |key: &str| match key {
        "rank" | "lora_targets" => "train=lora",
        _ => "seed=42",
    };
    let plain = [
        "model",
        "data",
        "columns",
        "val",
        "attention",
        "pose_chunks",
        "rank",
        "lora_targets",
        "min_lr_ratio",
        "betas",
        "weight_decay",
        "clip",
        "nan",
        "seed",
        "gpus",
        "eval",
        "passkey_samples",
        "resume",
        "save_every",
        "keep",
        "progress",
    ];
    for key in plain {
        let default = defaults::shown(key).unwrap();
        let default = default.split(" for ").next().unwrap();
        let given = run(&tiny(), &[with(key), &format!("{key}={default}")]);
        assert_eq!(given, run(&tiny(), &[with(key)]), "{key}={default}");
        assert_ne!(file::suggest(key).as_deref(), None);
    }
}

#[test]
fn flags_win_over_assignments_and_those_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.toml");
    std::fs::write(&path, "rank = 1\nsteps = 1\nseed = 1\ncontrol = true\ndata = [\"books\"]\ntarget = 4096\n").unwrap();
    let set = ["steps=2".to_owned(), "seed=2".to_owned(), "seq-len=1k".to_owned(), "seed=3".to_owned()];
    let flags = Settings { seed: Some(4), no_control: Some(true), ..Settings::default() };
    let merged = Settings::gather(flags, &set, Some(&path)).unwrap();
    assert_eq!((merged.rank, merged.steps, merged.seed), (Some(1), Some(2), Some(4)));
    assert_eq!((merged.control, merged.no_control), (None, Some(true)));
    assert_eq!((merged.target.unwrap().0, merged.seq_len.unwrap().0), (4096, 1024));
    assert_eq!(merged.data, Some(vec![Source::Path(dir.path().join("books"))]), "paths start at the file's folder");
}

#[test]
fn lengths_and_lists_may_be_numbers_strings_or_arrays() {
    let parse = |text: &str| Settings::parse(text, Path::new("x.toml")).unwrap();
    for text in ["eval_at = [256, \"1k\"]", "eval_at = \"256,1k\"", "eval_at = [\"256\", 1024]"] {
        assert_eq!(parse(text).eval_at.unwrap().0.iter().map(|l| l.0).collect::<Vec<_>>(), [256, 1024], "{text}");
    }
    assert_eq!(parse("eval = []").eval, Some(List(vec![])));
    assert_eq!(parse("lr = 1").lr, Some(1.0));
    assert_eq!(parse("gpus = 1\nwarmup = 5\nval = 9").val, Some(Holdout::Docs(9)));
}

#[test]
fn a_bad_file_is_reported_whole_with_lines_and_suggestions() {
    let text = "stpes = 3\n\nlearning_rate = 1e-4\nlr = \"fast\"\nrank = 8\nzzz = 1\ntarget = \"128q\"\n";
    let Err(error) = Settings::parse(text, Path::new("run.toml")) else { panic!("accepted") };
    assert_eq!(error.explain().exit_code(), 3);
    let text = shown(error);
    for part in [
        "error[E307]: 5 settings cannot be used",
        "stpes: unknown key (run.toml:1)",
        "stpes: did you mean steps?",
        "learning_rate: unknown key (run.toml:3)",
        "learning_rate: did you mean lr?",
        "lr: expected a number, got string \"fast\" (run.toml:4)",
        "zzz: unknown key (run.toml:6)",
        "target: expected a length such as 4096, 8k, 128k or 1m, got \"128q\" (run.toml:7)",
    ] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }

    let Err(error) = Settings::parse("rank = 8\nlr = = 2\n", Path::new("run.toml")) else { panic!("accepted") };
    assert!(shown(error).contains("run.toml:2"));
}

#[test]
fn a_target_within_the_context_is_refused_in_so_many_words() {
    let text = shown(resolve(&large(), &["model=./m", "data=/text", "target=4k"]).unwrap_err());
    let expected = "error[E303]: --target 4k is not longer than this model's context (8192 tokens)\n  \
                    from: ./m/config.json (max_position_embeddings 8192; rope theta 10000)\n  \
                    help: choose a larger --target (for example 16k), or fine-tune without extension: --rope keep --target 8k";
    assert_eq!(text, expected);
    // The way out that the message names.
    let config = run(&large(), &["model=./m", "data=/text", "target=8k", "rope=keep"]);
    assert_eq!((config.positions.method.name(), config.positions.target_rope), ("natural", large().config.rope));
    // Positions that reach beyond the row make no sense within the context.
    assert!(resolve(&large(), &["model=./m", "data=/text", "target=8k", "rope=keep", "positions=pose"]).is_err());
}

#[test]
fn pre_training_stays_within_the_context() {
    let config = run(&tiny(), &["init=/m/config.json", "tokenizer=/t", "data=/a"]);
    assert_eq!(
        (config.positions.target, config.positions.method.name(), config.positions.rope),
        (256, "natural", RopeKind::Keep)
    );
    assert_eq!((config.train.mode, config.eval.control), (TrainMode::Full, false));
    let keys = problem_keys(resolve(&tiny(), &["init=/m/config.json", "model=/m", "data=/a", "train=lora"]));
    assert_eq!(keys, ["init", "tokenizer", "train"]);
}

#[test]
fn all_problems_are_found_at_once() {
    let assignments = [
        "seq_len=4k",
        "pose_chunks=0",
        "s2_group=8",
        "rank=4",
        "steps=0",
        "micro_batch=0",
        "accum=0",
        "lr=-1",
        "betas=0.9",
        "warmup=50",
        "weight_decay=-1",
        "clip=0",
        "min_lr_ratio=2",
        "passkey_samples=0",
        "save_every=0",
        "keep=0",
        "export=adapter",
        "threads=0",
        "eval_every=0",
        "log_every=0",
    ];
    let keys = problem_keys(resolve(&tiny(), &assignments));
    for key in assignments.map(|a| a.split('=').next().unwrap()) {
        // With rows that are too long, the method's own numbers are not looked at.
        assert!(key == "pose_chunks" || keys.iter().any(|k| k == key), "{key} is missing in {keys:?}");
    }
    assert_eq!(problem_keys(resolve(&tiny(), &["pose_chunks=700"])), ["--pose-chunks"]);
    let both = resolve(&tiny(), &["target=128", "steps=0"]);
    let text = shown(both.unwrap_err());
    assert!(text.contains("not longer than this model's context (256 tokens) (from: builtin:tiny ("), "{text}");
}

#[test]
fn rows_are_never_longer_than_a_synthetic_document() {
    assert_eq!(run(&tiny(), &["data=synthetic:facts-64"]).data.seq_len, 64);
    assert_eq!(run(&tiny(), &["data=synthetic:long-2048"]).data.seq_len, 614, "30 % of the target is the shorter one");
    assert_eq!(run(&tiny(), &["data=synthetic:mixed-256"]).data.seq_len, 256);
    // A row that holds one of the short documents has one, others have part of a long one.
    let row = |settings: &[&str]| {
        let config = run(&tiny(), settings);
        (config.data.seq_len, config.data.train[0].to_string())
    };
    for method in ["pose", "e2-llm", "endprompt", "uniform"] {
        assert_eq!(row(&[&format!("method={method}")]), (256, "synthetic:mixed-256".into()), "the papers' rows have the context");
    }
    assert_eq!(row(&["positions=e2-llm"]).0, 256);
    assert_eq!(row(&["positions=uniform"]), (614, "synthetic:mixed-2048".into()));
    assert_eq!(row(&["seq_len=128"]), (128, "synthetic:mixed-256".into()));
    assert_eq!(row(&["seq_len=1k", "target=8k"]), (1024, "synthetic:mixed-8192".into()));
    assert_eq!(row(&["target=512"]).0, 256, "30 % of the target is less than the context");
    assert_eq!(row(&["target=128k"]), (4096, "synthetic:mixed-8192".into()), "a small model's step has no more tokens");
    assert_eq!(row(&["method=longrecipe", "target=512"]), (153, "synthetic:mixed-2048".into()));
    let full = run(&tiny(), &["method=full-length"]);
    assert_eq!((full.data.seq_len, full.data.train[0].to_string().as_str()), (2048, "synthetic:mixed-2048"));
    for assignments in [
        &["seq_len=257", "data=synthetic:mixed-256"][..],
        &["method=full-length", "data=synthetic:mixed-256"],
        &["data=synthetic:facts-64", "seq_len=65"],
    ] {
        let text = shown(resolve(&tiny(), assignments).unwrap_err());
        assert!(text.contains("seq_len: expected at most the ") && text.contains("such as --data synthetic:"), "{text}");
    }
    run(&tiny(), &["data=synthetic:facts-64", "seq_len=64"]);
}

#[test]
fn synthetic_text_stands_alone() {
    for data in
        ["[\"synthetic:facts-64\", \"/a\"]", "[\"/a\", \"synthetic:repeat\"]", "[\"synthetic:repeat\", \"synthetic:facts-64\"]"]
    {
        let text = shown(resolve(&tiny(), &[&format!("data={data}")]).unwrap_err());
        assert!(text.contains("data: expected files, or one synthetic:STAGE alone, got 2 sources"), "{text}");
    }
}

#[test]
fn a_setting_without_effect_is_refused() {
    let pairs: &[(&[&str], &str)] = &[
        (&["positions=natural", "pose_chunks=2"], "pose_chunks"),
        (&["e2_max_scale=2"], "e2_max_scale"),
        (&["e2_scale_per=step"], "e2_scale_per"),
        (&["select=/s.json"], "select"),
        (&["select_rest=0.1"], "select_rest"),
        (&["end_prompt=eos"], "end_prompt"),
        (&["end_prompt_weight=1"], "end_prompt_weight"),
        (&["method=longlora", "attention=full", "s2_group=1/2"], "s2_group"),
        (&["s2_group=64"], "s2_group"),
        (&["train=full", "alpha=1"], "alpha"),
        (&["train=lora", "lr_embed=1e-4"], "lr_embed"),
        (&["schedule=constant", "min_lr_ratio=0.2"], "min_lr_ratio"),
        (&["eval=ppl", "passkey_samples=3"], "passkey_samples"),
        (&["eval=none", "eval_every=3"], "eval_every"),
        (&["eval_data=/x", "val=3"], "val"),
        (&["gpus=0", "mem_limit=80g"], "mem_limit"),
        (&["gpus=0", "check_kernels=true"], "check_kernels"),
        (&["control=true", "no_control=true"], "control"),
        (&["method=e2-llm", "rope=yarn"], "rope"),
    ];
    for (assignments, key) in pairs {
        assert_eq!(problem_keys(resolve(&tiny(), assignments)), [*key], "{assignments:?}");
    }
}

#[test]
fn presets_set_axes_and_axes_win() {
    let full = run(&tiny(), &["method=full-length", "data=/a"]);
    assert_eq!((full.positions.method.name(), full.data.seq_len, full.train.micro_batch), ("natural", 2048, 2));
    let e2 = run(&tiny(), &["method=e2-llm"]);
    assert_eq!((e2.positions.method.name(), e2.positions.args.max_scale), ("e2-llm", Some(8)));
    assert_eq!(e2.positions.training_rope(), &tiny().config.rope);
    assert_eq!(e2.positions.target_rope.scaling, RopeScaling::Linear { factor: 8.0 });
    let mixed = run(&tiny(), &["method=pose", "positions=random", "rope=linear"]);
    assert_eq!((mixed.positions.method.name(), mixed.positions.rope), ("random", RopeKind::Linear));
    let s2 = run(&tiny(), &["attention=s2", "no_pack=true"]);
    assert_eq!((s2.positions.attend, s2.data.packing), (Attend::Shifted { group: Group::Parts(4) }, Packing::Off));
}

#[test]
fn shares_of_rows_become_a_mix() {
    let spec = |settings: &[&str]| run(&tiny(), settings).positions.method.to_string();
    assert_eq!(spec(&["contiguous=15%"]), "mix:pose=85,natural=15");
    assert_eq!(spec(&["positions=mix:pose=3,uniform=1", "retrieval=20%"]), "mix:pose=60,uniform=20,retrieval=20");
    assert_eq!(spec(&["positions=mix:pose=1,natural=1", "contiguous=0.5"]), "mix:pose=50,natural=50");
    assert_eq!(spec(&["retrieval=10%", "contiguous=20%"]), "mix:pose=70,retrieval=10,natural=20");
    assert_eq!(problem_keys(resolve(&tiny(), &["retrieval=60%", "contiguous=50%"])), ["contiguous"]);
    for alone in [["positions=natural", "contiguous=50%"], ["positions=retrieval", "retrieval=10%"]] {
        let key = alone[1].split('=').next().unwrap();
        assert_eq!(problem_keys(resolve(&tiny(), &alone)), [key], "half of the rows have no method");
    }
    assert_eq!(spec(&["positions=retrieval", "retrieval=100%"]), "retrieval");
    assert_eq!(problem_keys(resolve(&tiny(), &["attention=s2", "s2_group=1/308"])), ["s2_group"]);
    assert_eq!(spec(&["contiguous=0"]), "pose");
    // A mix with E2-LLM trains on the base rotation: all other rows are divided by the factor.
    let e2 = run(&tiny(), &["positions=mix:pose=1,e2-llm=1"]);
    assert_eq!((e2.positions.training_rope(), e2.positions.rope), (&tiny().config.rope, RopeKind::Linear));
    let mix = e2.positions.plan(&Words::default()).unwrap();
    let scales: std::collections::BTreeSet<u32> = (0..200).map(|row| mix.row(1, row).scale as u32).collect();
    assert_eq!(scales, (1..=8).collect());
    assert_eq!(problem_keys(resolve(&tiny(), &["positions=mix:pose=1,e2-llm=1", "rope=yarn"])), ["rope"]);
}

/// Numbers of the papers, from their texts and released scripts.
#[test]
fn presets_with_paper_have_the_papers_numbers() {
    let (big, mut scaled) = (large(), large());
    let large = |method: &str| run(&big, &["model=/m", "data=/a", "target=64k", &format!("method={method}:paper")]);
    let of = |c: &RunConfig| {
        let rows = c.train.micro_batch * c.train.accum;
        (c.optim.lr, c.train.steps, rows, c.schedule().warmup, c.optim.adamw.beta2, c.optim.adamw.weight_decay, c.train.mode)
    };
    assert_eq!(of(&large("pose")), (2e-5, 1000, 64, 10, 0.999, 0.0, TrainMode::Full));
    assert_eq!(of(&large("e2-llm")), (1e-5, 30_000, 16, 0, 0.95, 0.0, TrainMode::Full));
    assert_eq!(of(&large("longrecipe")), (5e-5, 104, 96, 0, 0.999, 0.1, TrainMode::Full));
    assert_eq!(of(&large("longlora")), (2e-5, 1000, 64, 20, 0.95, 0.0, TrainMode::LoraPlus));
    assert_eq!(of(&large("endprompt")), (2e-5, 1907, 64, 20, 0.999, 0.0, TrainMode::Full));
    let longlora = large("longlora");
    let lora = longlora.train.lora.as_ref().unwrap();
    assert_eq!((lora.rank, lora.alpha, lora.targets.len(), longlora.optim.lr_embed), (8, 16.0, 4, 2e-5));
    assert_eq!((longlora.data.seq_len, longlora.positions.rope), (65536, RopeKind::Linear));
    assert_eq!(longlora.positions.attend, Attend::Shifted { group: Group::Parts(4) });
    let recipe = large("longrecipe");
    assert_eq!((recipe.data.seq_len, recipe.positions.rope), (19660, RopeKind::LongRecipe(None)));
    let e2 = large("e2-llm").positions.args;
    assert_eq!((e2.max_scale, e2.rows_per_scale), (Some(20), 16));
    // What the user says wins, and brings no complaint about what the preset said.
    let own = run(&big, &["model=/m", "data=/a", "method=longlora:paper", "train=full", "attention=full", "steps=5"]);
    assert_eq!((own.train.mode, own.train.steps, own.positions.attend), (TrainMode::Full, 5, Attend::Full));
    // A model that is scaled already keeps its kind, whatever the paper had.
    scaled.config.rope.scaling = RopeScaling::llama3(8.0, 1024);
    let own = |method: &str| resolve(&scaled, &["model=/m", "data=/a", "target=64k", method]);
    assert_eq!(own("method=longlora").unwrap().positions.rope, RopeKind::Llama3);
    assert_eq!(problem_keys(own("method=e2-llm")), ["positions"]);
    for (scaling, kind) in [
        (RopeScaling::Linear { factor: 2.0 }, RopeKind::Linear),
        (RopeScaling::Dynamic { factor: 2.0 }, RopeKind::LongRecipe(None)),
    ] {
        scaled.config.rope.scaling = scaling;
        let own = run(&scaled, &["model=/m", "data=/a", "target=64k", "method=longrecipe"]);
        assert_eq!(own.positions.rope, kind);
    }
    scaled.config.rope.scaling = RopeScaling::llama3(8.0, 1024);
    let replay = run(&scaled, &["model=/m", "data=/a", "method=replay"]);
    assert_eq!((replay.positions.target, replay.positions.rope), (replay.positions.context, RopeKind::Keep));
    assert!("uniform:paper".parse::<ltrain::config::text::Recipe>().is_err());
}

#[test]
fn a_rotation_that_would_discard_the_models_own_is_refused() {
    let mut model = large();
    model.config.rope.scaling = RopeScaling::llama3(8.0, 1024);
    assert_eq!(run(&model, &["model=/m", "data=/a"]).positions.rope, RopeKind::Llama3);
    let text = shown(resolve(&model, &["model=/m", "data=/a", "rope=ntk"]).unwrap_err());
    assert!(text.contains("the base model is trained with llama3"), "{text}");
    assert!(text.contains("--rope ntk") && text.contains("help: use --rope llama3"), "{text}");
}

#[test]
fn the_fingerprint_knows_what_a_continued_run_may_change() {
    let base = run(&tiny(), &[]).fingerprint("9f3c");
    let free = [
        "steps=9999",
        "save_every=3",
        "keep=9",
        "log_every=2",
        "eval_every=5",
        "gpus=0",
        "mem_limit=1.5g",
        "check_kernels=true",
        "threads=1",
        "out=/other",
        "progress=plain",
    ];
    for assignment in free {
        assert_eq!(run(&tiny(), &[assignment]).fingerprint("9f3c"), base, "{assignment}");
    }
    for assignment in ["target=4k", "seed=1", "lr=2e-3", "positions=random", "train=lora", "warmup=3", "no_pack=true"] {
        assert_ne!(run(&tiny(), &[assignment]).fingerprint("9f3c"), base, "{assignment}");
    }
    assert_ne!(run(&tiny(), &[]).fingerprint("51ab"), base);
    assert!(base.contains(&("target".into(), "2k".into())) && base.contains(&("data (hash)".into(), "9f3c".into())));
}

#[test]
fn models_are_known_by_their_config_alone() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("Some-Model");
    std::fs::create_dir(&folder).unwrap();
    let missing = ModelInfo::read(&Settings { model: Some(ModelSource::Folder(folder.clone())), ..Settings::default() });
    assert!(missing.is_err());
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/tiny/config.json"), folder.join("config.json")).unwrap();
    let by_folder =
        ModelInfo::read(&Settings { model: Some(ModelSource::Folder(folder.clone())), ..Settings::default() }).unwrap();
    let by_init = ModelInfo::read(&Settings { init: Some(folder.join("config.json")), ..Settings::default() }).unwrap();
    assert_eq!((by_folder.name.as_str(), &by_folder.config), ("Some-Model", &tiny().config));
    assert_eq!(by_init, by_folder);
    let absent = Settings { init: Some(PathBuf::from("/no/such.json")), ..Settings::default() };
    assert_eq!(ModelInfo::read(&absent).unwrap_err().explain().code, "E305");
}

#[test]
fn rotations_that_config_json_cannot_hold_are_refused_before_training() {
    let narrow = |head_dim| ModelInfo::new("narrow", ModelConfig { head_dim, ..large().config });
    for (model, assignments, says) in [
        (large(), ["target=32k", "rope=theta:1.5"], "rope_theta: expected a number from 2.0 to 1000000000000000.0, got 1.5"),
        (tiny(), ["target=4194303k", "rope=linear"], "factor: expected a number from 1.0 to 1000000.0"),
        (narrow(4), ["target=4194303k", "rope=ntk"], "rope_theta: expected a number"),
        (narrow(2), ["target=32k", "rope=ntk"], "theta: inf"),
    ] {
        let given = [&assignments[..], &["model=/m", "data=/a"]].concat();
        assert_eq!(problem_keys(resolve(&model, &given)), ["rope"], "{assignments:?}");
        let text = shown(resolve(&model, &given).unwrap_err());
        assert!(text.contains(says) && text.contains("help: choose a smaller --target, or another --rope"), "{text}");
    }
    run(&narrow(2), &["model=/m", "data=/a", "rope=yarn"]);
}
