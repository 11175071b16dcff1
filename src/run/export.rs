//! `ltrain export`: one set of weights under several rotations, each in a model folder of its own.

use super::Ending;
use super::base::OnDisk;
use super::commands::print;
use super::ui::Ui;
use crate::cli::ExportArgs;
use crate::config::choices::Progress;
use crate::config::{ConfigError, Problem};
use crate::error::{IoContext, Result};
use crate::io::atomic::{Existing, write_dir_atomically};
use crate::io::export::SHARD_LIMIT;
use crate::io::{Export, fill_model_dir, fill_twin};
use crate::model::ModelConfig;
use crate::model::rope::{RopeError, RopeKind};

/// A configuration and the name of its folder.
struct Variant {
    folder: String,
    config: ModelConfig,
}

/// The model under one rotation; its context is the one that the rotation reaches.
fn variant(model: &ModelConfig, kind: RopeKind) -> Result<Variant> {
    let RopeKind::Factor(_, factor) = kind else {
        let problem = Problem::new("rope", format!("expected a rotation with its factor, got {kind}"))
            .help("the factor says which context config.json gets: --rope linear:4, ntk:4, yarn:4 or llama3:4");
        return Err(ConfigError::Problems(vec![problem]).into());
    };
    let unfit = |e: RopeError| ConfigError::Problems(vec![Problem::from_error(&e)]);
    let context = model.rope.context_at(factor, model.context).map_err(unfit)?;
    let rope = model.rope.extended(kind, model.context, context, model.head_dim).map_err(unfit)?;
    let folder = kind.to_string().replace(':', "-");
    Ok(Variant { folder, config: ModelConfig { rope, context, ..model.clone() } })
}

/// `ltrain export`.
pub fn export(args: &ExportArgs) -> Result<Ending> {
    let model = OnDisk::open(&args.model, args.adapter.as_deref())?;
    let variants = args.rope.0.iter().map(|&kind| variant(model.config(), kind)).collect::<Result<Vec<_>>>()?;
    if let Some((i, twice)) = variants.iter().enumerate().find(|(i, v)| variants[..*i].iter().any(|w| w.folder == v.folder)) {
        let problem = Problem::new("rope", format!("{} is given twice, the second time in place {}", twice.folder, i + 1));
        return Err(ConfigError::Problems(vec![problem.help("leave out one of them")]).into());
    }
    let storage = args.dtype.map_or_else(|| model.base.storage(), Ok)?;
    let of = |config| Export { base: &model.base, config, storage, existing: Existing::Refuse, shard_limit: SHARD_LIMIT };
    let mut copied = None;
    write_dir_atomically(&args.out, Existing::Refuse, |tmp| {
        let mut first = None;
        for variant in &variants {
            let dir = tmp.join(&variant.folder);
            std::fs::create_dir(&dir).context("create", &dir)?;
            match &first {
                None => {
                    fill_model_dir(&dir, &of(&variant.config), model.tensors())?;
                    first = Some(dir);
                }
                Some(first) => copied = fill_twin(&dir, &of(&variant.config), first)?.or(copied.take()),
            }
        }
        Ok(())
    })?;
    if let Some(reason) = copied {
        Ui::new(Progress::Auto)
            .say(&format!("the folders hold copies of the weights: the file system makes no hard links ({reason})"));
    }
    let lines = variants.iter().map(|v| {
        let (context, rope) = (v.config.context, &v.config.rope);
        format!("{}  {rope}, context {context}\n", args.out.join(&v.folder).display())
    });
    print(&lines.collect::<String>())?;
    Ok(Ending::Finished)
}
