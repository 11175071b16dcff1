//! The command.

use std::io::Write;
use std::process::ExitCode;

use ltrain::backend::gpu;
use ltrain::cli::{self, Cli, Command, ConfigCommand};
use ltrain::config::{ModelInfo, RunConfig, Settings};
use ltrain::error::{Explain, IoError, Shown};
use ltrain::{doctor, run};

fn main() -> ExitCode {
    let done = match cli::parse() {
        Cli { command: None, train } => train.gather().and_then(|s| train_on(&resolved(&s)?)),
        Cli { command: Some(command), .. } => dispatch(command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when stderr is closed too.
            let _ = writeln!(std::io::stderr(), "{}", Shown(&error));
            ExitCode::from(error.explain().exit_code())
        }
    }
}

fn dispatch(command: Command) -> ltrain::Result<()> {
    match command {
        Command::Eval(args) => run::eval(&args),
        Command::Generate(args) => run::generate(&args),
        Command::Merge(args) => run::merge(&args),
        Command::Doctor(args) => print(&doctor::page(&args)),
        Command::Config(ConfigCommand::Dump(args)) => print(&dump(&args.gather()?)?),
        Command::Config(ConfigCommand::Check(args)) => resolved(&args.gather()?).map(drop),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut cli::command(), "ltrain", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
    }
}

/// Looks for the device first: nothing is read in vain when it is missing.
fn train_on(config: &RunConfig) -> ltrain::Result<()> {
    let place = gpu::select(config.train.gpus)?;
    run::train(config, &place)
}

fn resolved(settings: &Settings) -> ltrain::Result<RunConfig> {
    Ok(RunConfig::resolve(settings, &ModelInfo::read(settings)?)?)
}

/// The effective settings; the folder of a run that did not happen is not among them.
fn dump(settings: &Settings) -> ltrain::Result<String> {
    let effective = resolved(settings)?.settings();
    Ok(Settings { out: settings.out.clone(), ..effective }.to_toml())
}

/// Writes to stdout without the panic of `print!` when the reader is gone.
fn print(text: &str) -> ltrain::Result<()> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|source| IoError { action: "write", path: "standard output".into(), source }.into())
}

fn is_broken_pipe(error: &ltrain::Error) -> bool {
    matches!(error, ltrain::Error::Io(IoError { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe)
}
