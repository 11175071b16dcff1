//! A GPU that was asked for and cannot be used: what is said and with which exit code.

use std::process::{Command, Output};

use crate::fake;
use ltrain::backend::device::IMAGES;

fn ltrain(words: &str, settings: &[(&str, &str)]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ltrain"));
    command.args(words.split_whitespace()).current_dir(dir.path()).env("NO_COLOR", "1").env_remove("CUDA_VISIBLE_DEVICES");
    command.env("LD_LIBRARY_PATH", fake::folder()).envs(settings.iter().copied());
    command.output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What the driver shows, and what is said about it.
type Case = (&'static [(&'static str, &'static str)], &'static [&'static str]);
const CASES: [Case; 7] = [
    (&[("FAKE_VERSION", "11080")], &["driver supports CUDA 11.8, this build needs 12.0 or newer", "525 or newer"]),
    (&[("FAKE_CAPABILITY", "75")], &["NVIDIA Imaginary (compute capability 7.5, 80.0 GiB) is too old", "8.0 or newer"]),
    (&[("FAKE_INIT", "100")], &["no usable CUDA device was found", "works, but reports no device"]),
    (&[("FAKE_COUNT", "0"), ("CUDA_VISIBLE_DEVICES", "")], &["no usable CUDA device was found", "CUDA_VISIBLE_DEVICES is \"\""]),
    (&[("FAKE_INIT", "803")], &["error 803 (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "a restart is needed"]),
    (&[("FAKE_INIT", "34")], &["CUDA_ERROR_STUB_LIBRARY"]),
    (&[("FAKE_INIT", "999")], &["error 999 (CUDA_ERROR_UNKNOWN)"]),
];

#[test]
fn every_reason_is_told_apart_and_nothing_falls_back() {
    for (settings, parts) in CASES {
        let output = ltrain("--gpus 1", settings);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(5), "{settings:?}: {text}");
        assert!(text.starts_with("error[E501]: ") && text.contains("\n  help: "), "{settings:?}: {text}");
        for part in parts {
            assert!(text.contains(part), "{settings:?}: {part:?} is missing in:\n{text}");
        }
    }
}

#[test]
fn doctor_gives_the_reason_and_succeeds() {
    for (settings, parts) in CASES {
        let output = ltrain("doctor", settings);
        assert!(output.status.success(), "{settings:?}: {}", stderr(&output));
        let table = String::from_utf8(output.stdout).unwrap();
        let device = table.lines().find(|line| line.starts_with("device")).unwrap();
        // The way out is not part of it.
        let reason = parts[0].replace("no usable CUDA device was found", "the CUDA driver shows no device");
        assert!(device.starts_with("device  ") && device.contains(&reason), "{settings:?}: {device}");
    }
}

/// The toolkit's library for linking has the driver's functions, which all return error 34, and the driver's own name inside.
#[test]
fn a_stub_that_hides_the_driver_is_found_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    let [stubs, driver] = ["stubs", "driver"].map(|name| dir.path().join(name));
    [&stubs, &driver].into_iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
    std::fs::write(stubs.join("stub.cpp"), "extern \"C\" int cuInit(unsigned) { return 34; }").unwrap();
    fake::compile(&stubs, "libcuda.so", "libcuda.so.1", &["stub.cpp"]);
    fake::compile(&driver, "libcuda.so.1", "libcuda.so.1", &[fake::SOURCE]);
    let both = format!("{}:{}", stubs.display(), driver.display());
    let text = stderr(&ltrain("--gpus 1", &[("LD_LIBRARY_PATH", &both)]));
    assert!(text.starts_with("error[E501]") && text.contains("CUDA_ERROR_STUB_LIBRARY"), "{text}");
    assert!(text.contains("take the toolkit's stubs folder (…/lib64/stubs) out of LD_LIBRARY_PATH"), "{text}");
    let table = ltrain("doctor", &[("LD_LIBRARY_PATH", &both)]).stdout;
    let table = String::from_utf8(table).unwrap();
    assert!(table.contains("device  ") && table.contains("CUDA_ERROR_STUB_LIBRARY") && !table.contains("Imaginary"), "{table}");
}

#[test]
fn what_is_said_of_a_gpu_that_is_not_used_goes_to_stderr_for_every_command() {
    let words = "builtin:tiny -p Once -n 1 --gpus auto --mem-limit 1g";
    let output = ltrain(&format!("generate {words}"), &[("FAKE_INIT", "100")]);
    let text = stderr(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("--mem-limit has no effect: this is the CPU"), "{text}");
    assert!(text.contains("device  cpu (the CUDA driver shows no device"), "{text}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.starts_with("Once") && !stdout.contains("device"), "{stdout}");
}

#[test]
fn a_good_gpu_and_no_kernels_for_it_ask_for_another_build() {
    let output = ltrain("--gpus 1", &[]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(5), "{text}");
    match IMAGES.is_empty() {
        true => assert!(text.contains("this build has no GPU kernels") && text.contains("setup_nvcc.sh"), "{text}"),
        // This driver takes no real machine code.
        false => assert!(text.contains("the CUDA driver refuses the kernels of"), "{text}"),
    }
}
