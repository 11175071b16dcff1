//! What integration tests share: where the fixtures are and how to read them.
#![allow(dead_code)] // every test binary compiles this file and uses its own part of it

pub mod backends;
pub mod packed;
pub mod runs;

use std::collections::HashMap;
use std::path::PathBuf;

use ltrain::model::{Arch, ModelConfig, RopeConfig, RopeScaling};
use safetensors::{Dtype, SafeTensors};

/// The fixtures' folder: `$LTRAIN_FIXTURES`, or `tests/fixtures`.
pub fn fixtures() -> PathBuf {
    std::env::var_os("LTRAIN_FIXTURES")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures"), PathBuf::from)
}

/// The folder of the built-in model: the repository's, or, where there is none, the one packed beside the fixtures.
pub fn builtin() -> PathBuf {
    let repository = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("assets/tiny");
    if repository.exists() { repository } else { fixtures().join("../../assets/tiny") }
}

/// How far `got` is from `want` in the Frobenius norm, by that of `want`.
pub fn distance(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len(), "number of elements");
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let off = norm(&mut got.iter().zip(want).map(|(g, w)| f64::from(*g) - f64::from(*w)));
    let size = norm(&mut want.iter().map(|w| f64::from(*w)));
    off / size.max(1e-12)
}

/// That [`distance`] is at most `tolerance`. NaN is an error.
pub fn assert_close_in_norm(what: &str, got: &[f32], want: &[f32], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}: number of elements");
    let relative = distance(got, want);
    assert!(relative <= tolerance, "{what}: relative error {relative:.2e}, allowed {tolerance:.0e}");
}

/// One fixture file, read whole.
pub struct Golden {
    bytes: Vec<u8>,
    meta: HashMap<String, String>,
}

impl Golden {
    /// Opens `<fixtures>/<name>.safetensors`.
    pub fn open(name: &str) -> Self {
        let path = fixtures().join(format!("{name}.safetensors"));
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("fixture {}: {e}", path.display()));
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap_or_else(|e| panic!("fixture {}: {e}", path.display()));
        let meta = header.metadata().clone().unwrap_or_default();
        Self { bytes, meta }
    }

    /// Names of the tensors, sorted.
    pub fn names(&self) -> Vec<String> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let mut names: Vec<String> = file.names().into_iter().map(str::to_owned).collect();
        names.sort();
        names
    }

    /// A float tensor and its shape.
    pub fn f32(&self, name: &str) -> (Vec<f32>, Vec<usize>) {
        self.read(name, Dtype::F32, f32::from_le_bytes)
    }

    /// An integer tensor and its shape.
    pub fn i64(&self, name: &str) -> (Vec<i64>, Vec<usize>) {
        self.read(name, Dtype::I64, i64::from_le_bytes)
    }

    /// A metadata entry: its JSON, or a JSON string when it is plain text.
    pub fn meta(&self, key: &str) -> serde_json::Value {
        let text = self.meta.get(key).unwrap_or_else(|| panic!("fixture has no metadata {key:?}"));
        serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into())
    }

    fn read<T, const N: usize>(&self, name: &str, dtype: Dtype, from: fn([u8; N]) -> T) -> (Vec<T>, Vec<usize>) {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(name).unwrap_or_else(|e| panic!("tensor {name:?}: {e}; the file has {:?}", self.names()));
        assert_eq!(view.dtype(), dtype, "storage of {name:?}");
        let values = view.data().chunks_exact(N).map(|b| from(b.try_into().expect("chunks_exact(N) yields N bytes"))).collect();
        (values, view.shape().to_vec())
    }
}

/// Two layers in every extent's own size, context 32, yarn to 256.
pub fn small_model() -> ModelConfig {
    ModelConfig {
        arch: Arch::Llama,
        vocab: 256,
        hidden: 64,
        ffn: 96,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 32,
        rms_eps: 1e-5,
        tied: true,
        qkv_bias: false,
        o_bias: false,
        mlp_bias: false,
        qk_norm: false,
        context: 32,
        rope: RopeConfig { theta: 1e4, scaling: RopeScaling::yarn(8.0, 32) },
        bos: None,
        eos: Vec::new(),
        initializer_range: 0.1,
    }
}
