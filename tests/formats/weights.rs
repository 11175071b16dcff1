//! Safetensors: what is written is what is read, by us and by the reference implementation.

use std::fs;

use half::{bf16, f16};
use ltrain::io::safetensors::{SafetensorsFile, Storage, TensorView, write_safetensors};
use ltrain::tensor::{Buffer, Tensor};
use safetensors::SafeTensors;

use crate::{MODELS, assert_error, model};

fn ramp(shape: [usize; 2], phase: f32) -> Tensor {
    let data = (0..shape[0] * shape[1]).map(|i| (0.37 * i as f32 + phase).sin()).collect();
    Tensor::f32(data, shape)
}

#[test]
fn every_fixture_reads_as_the_reference_reads_it_and_is_written_back_equal() {
    let out = tempfile::tempdir().unwrap();
    for name in MODELS {
        let path = model(name).join("model.safetensors");
        let file = SafetensorsFile::open(&path).unwrap();
        let bytes = fs::read(&path).unwrap();
        let reference = SafeTensors::deserialize(&bytes).unwrap();
        let views: Vec<TensorView<'_>> = file.views().map(Result::unwrap).collect();
        assert_eq!(views.len(), reference.len());
        let tensors: Vec<(&str, Tensor)> = views.iter().map(|v| (v.name, v.to_tensor().unwrap())).collect();

        let copy = out.path().join(name);
        write_safetensors(&copy, Storage::F32, tensors.iter().map(|(n, t)| (*n, t))).unwrap();
        let written = fs::read(&copy).unwrap();
        let again = SafeTensors::deserialize(&written).unwrap();
        for view in &views {
            let theirs = reference.tensor(view.name).unwrap();
            assert_eq!((view.shape, view.bytes), (theirs.shape(), theirs.data()));
            let ours = again.tensor(view.name).unwrap();
            assert_eq!((ours.shape(), ours.data()), (view.shape, view.bytes));
        }
        let header = u64::from_le_bytes(written[..8].try_into().unwrap());
        assert_eq!(header % 8, 0, "tensors start aligned");
        let format = ("format".to_string(), "pt".to_string());
        assert_eq!(SafetensorsFile::open(&copy).unwrap().metadata(), [format]);
    }
}

#[test]
fn half_precision_is_rounded_once_and_widened_exactly() {
    let dir = tempfile::tempdir().unwrap();
    // Longer than a conversion chunk, so that chunks and tails are both covered.
    let tensor = ramp([257, 300], 0.5);
    let data = tensor.as_f32().unwrap();
    for (storage, rounded) in [
        (Storage::Bf16, data.iter().map(|&v| bf16::from_f32(v).to_f32()).collect::<Vec<_>>()),
        (Storage::F16, data.iter().map(|&v| f16::from_f32(v).to_f32()).collect()),
    ] {
        let path = dir.path().join(storage.name());
        write_safetensors(&path, storage, [("w", &tensor)]).unwrap();
        let file = SafetensorsFile::open(&path).unwrap();
        let view = file.view("w").unwrap();
        assert_eq!((view.storage, view.bytes.len()), (storage, 2 * data.len()));
        assert_eq!(view.to_f32().unwrap(), rounded);
        let stored = view.to_tensor_as_stored().unwrap();
        assert_eq!(matches!(stored.buffer(), Buffer::Bf16(_)), storage == Storage::Bf16);
        assert_eq!(stored.to_host_f32().unwrap().as_f32().unwrap(), rounded);
        assert_ne!(rounded, data);
    }
}

#[test]
fn empty_files_and_scalars_are_tensors_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w");
    write_safetensors(&path, Storage::F32, []).unwrap();
    assert_eq!(SafetensorsFile::open(&path).unwrap().names().count(), 0);
    let (scalar, none) = (Tensor::scalar(3.5), Tensor::zeros([0, 4]));
    write_safetensors(&path, Storage::F32, [("a", &none), ("b", &scalar), ("c", &none)]).unwrap();
    let file = SafetensorsFile::open(&path).unwrap();
    assert_eq!(file.view("b").unwrap().to_tensor().unwrap(), scalar);
    assert_eq!(file.view("c").unwrap().to_tensor().unwrap(), none);
}

#[test]
fn values_that_cannot_be_stored_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w");
    let write = |value: f32, storage| {
        let tensor = Tensor::f32(vec![0.0, value], [2]);
        write_safetensors(&path, storage, [("norm", &tensor)])
    };
    write(70000.0, Storage::Bf16).unwrap();
    assert_error(write(70000.0, Storage::F16), "E603", &["\"norm\" holds 70000 (element 1)", "F16 cannot store"]);
    assert_error(write(f32::NAN, Storage::F32), "E603", &["NaN"]);
}

#[cfg(unix)]
#[test]
fn a_written_file_has_the_mode_of_any_new_file() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (ours, plain) = (dir.path().join("w"), dir.path().join("plain"));
    write_safetensors(&ours, Storage::F32, [("w", &Tensor::scalar(1.0))]).unwrap();
    fs::write(&plain, "").unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(ours), mode(plain));
}

#[test]
fn a_missing_tensor_is_reported_with_the_nearest_name() {
    let file = SafetensorsFile::open(&model("llama").join("model.safetensors")).unwrap();
    let found = file.view("model.layers.0.self_attn.qproj.weight");
    assert_error(found, "E605", &["nearest name in the file: \"model.layers.0.self_attn.q_proj.weight\""]);
}
