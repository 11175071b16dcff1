//! The command.

use std::io::Write;
use std::process::ExitCode;

use ltrain::backend::Kernels;
use ltrain::backend::gpu::Place;
use ltrain::cli::{self, Cli, Command, ConfigCommand, DataCommand, DeviceArgs};
use ltrain::config::{ModelInfo, RunConfig, Settings, text::Source};
use ltrain::doctor;
use ltrain::error::{Explain, IoError, Shown};
use ltrain::run::{self, Ending, print};

/// EX_TEMPFAIL: the same command again continues.
const STOPPED: u8 = 75;

fn main() -> ExitCode {
    let done = match cli::parse() {
        Cli { command: None, train } => train.gather().and_then(|s| train_on(&resolved(&s)?)),
        Cli { command: Some(command), .. } => dispatch(command),
    };
    match done {
        Ok(Ending::Finished) => ExitCode::SUCCESS,
        Ok(Ending::Stopped) => ExitCode::from(STOPPED),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when stderr is closed too.
            let _ = writeln!(std::io::stderr(), "{}", Shown(&error));
            ExitCode::from(error.explain().exit_code())
        }
    }
}

fn dispatch(command: Command) -> ltrain::Result<Ending> {
    match command {
        Command::Eval(args) => on_device(&args.device, |place, kernels| run::eval(&args, place, kernels)),
        Command::Generate(args) => on_device(&args.device, |place, kernels| run::generate(&args, place, kernels)),
        Command::LongRecipe(args) => {
            let stages = run::LongRecipeStages::of(*args)?;
            let (place, kernels) = run::start_for_run(&stages.extend)?;
            let command: Vec<_> = std::env::args().collect();
            run::on_threads(stages.extend.train.threads, || stages.run(&place, &*kernels, &command.join(" ")))
        }
        Command::Merge(args) => match args.searched() {
            Some(with) => on_device(&args.device, |place, kernels| run::merge_best(&args, with, (place, kernels))),
            None => run::on_threads(args.device.threads, || run::merge(&args)),
        },
        Command::Analyze(args) => on_device(&args.device, |place, kernels| run::analyze(&args, place, kernels)),
        Command::Export(args) => run::on_threads(None, || run::export(&args)),
        Command::Plan(args) => run::plan(&resolved(&with_text(args.gather()?))?).map(finished),
        Command::Doctor(args) => {
            let (page, verdict) = doctor::page(&args);
            print(&page).and(verdict).map(finished)
        }
        Command::Bench(args) => on_device(&args.device, |place, kernels| run::bench(&args, place, kernels)),
        Command::Data(DataCommand::Inspect(args)) => {
            let (rows, settings) = (args.rows, args.train.gather()?);
            run::on_threads(settings.threads, || run::inspect(&resolved(&settings)?, rows))
        }
        Command::Config(ConfigCommand::Dump(args)) => print(&dump(&args.gather()?)?).map(finished),
        Command::Config(ConfigCommand::Check(args)) => resolved(&args.gather()?).map(drop).map(finished),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut cli::command(), "ltrain", &mut script);
            print(&String::from_utf8_lossy(&script)).map(finished)
        }
    }
}

fn on_device(
    args: &DeviceArgs,
    work: impl FnOnce(&Place, &dyn Kernels) -> ltrain::Result<Ending> + Send,
) -> ltrain::Result<Ending> {
    let (place, kernels) = run::start_for(args)?;
    run::on_threads(args.threads, || work(&place, &*kernels))
}

/// Looks for the device first: nothing is read in vain when it is missing.
fn train_on(config: &RunConfig) -> ltrain::Result<Ending> {
    let (place, kernels) = run::start_for_run(config)?;
    let command: Vec<_> = std::env::args().collect();
    run::on_threads(config.train.threads, || run::train(config, &place, &*kernels, &command.join(" ")))
}

fn resolved(settings: &Settings) -> ltrain::Result<RunConfig> {
    Ok(RunConfig::resolve(settings, &ModelInfo::read(settings)?)?)
}

/// For a plan, which reads no text: any name will do where none is given.
fn with_text(settings: Settings) -> Settings {
    let data = settings.data.or_else(|| Some(vec![Source::Path("text".into())]));
    Settings { data, ..settings }
}

/// The effective settings.
fn dump(settings: &Settings) -> ltrain::Result<String> {
    Ok(resolved(settings)?.to_toml())
}

fn finished((): ()) -> Ending {
    Ending::Finished
}

fn is_broken_pipe(error: &ltrain::Error) -> bool {
    matches!(error, ltrain::Error::Io(IoError { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe)
}
