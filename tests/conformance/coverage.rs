//! Nothing is left out: a word of `ptx.cuh` without a kernel, or a kernel without a test, fails here.

use ltrain::backend::device::KERNELS;

const WORDS: &str = include_str!("../../kernels/ptx.cuh");
const KERNEL_FILES: [&str; 2] =
    [include_str!("../../kernels/conformance/words.cu"), include_str!("../../kernels/conformance/words_hopper.cu")];
const TESTS: [&str; 5] = [
    include_str!("hopper.rs"),
    include_str!("memory.rs"),
    include_str!("numbers.rs"),
    include_str!("tma.rs"),
    include_str!("warp.rs"),
];

/// A text without what follows `//`.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The identifiers of a text, in order.
fn identifiers(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// What a header declares for kernels: its device functions and the macros that make shared memory.
fn declared(header: &str) -> Vec<&str> {
    let functions = header.lines().filter(|line| line.starts_with("DEV ")).filter_map(|line| line.split_once('('));
    let functions = functions.filter_map(|(head, _)| identifiers(head).last());
    let macros = header.lines().filter_map(|line| line.strip_prefix("#define SHARED")).filter_map(|rest| rest.split_once('('));
    let macros = macros.map(|(rest, _)| if rest.is_empty() { "SHARED" } else { "SHARED_DYN" });
    functions.chain(macros).collect()
}

/// The words that no kernel of these texts uses.
fn unused<'a>(words: &[&'a str], kernels: &[&str]) -> Vec<&'a str> {
    let texts: Vec<String> = kernels.iter().map(|text| code(text)).collect();
    let used: Vec<&str> = texts.iter().flat_map(|text| identifiers(text)).collect();
    words.iter().copied().filter(|word| !used.contains(word)).collect()
}

#[test]
fn every_word_has_a_kernel() {
    let words = declared(WORDS);
    for known in ["bf_lo", "cp_async_wait", "mbar_wait", "wgmma_m64n64k16_tb", "wgmma_desc_sw128", "SHARED", "SHARED_DYN"] {
        assert!(words.contains(&known), "{known} was not found among {words:?}");
    }
    assert_eq!(unused(&words, &KERNEL_FILES), Vec::<&str>::new(), "words of ptx.cuh that no kernel of kernels/conformance uses");
}

#[test]
fn a_word_without_a_kernel_would_be_found() {
    let header =
        "DEV int used(int x) { return x; }\ntemplate <int N>\nDEV void fresh() {}\n#define SHARED(T, name, n) T name[n]\n";
    let kernels = "// fresh() is spoken of only\nKERNEL(32) k(int n) { SHARED(int, s, 1); used(n); refreshed(); }";
    assert_eq!(unused(&declared(header), &[kernels]), ["fresh"]);
}

#[test]
fn every_kernel_has_a_test() {
    let kernels: Vec<&str> = KERNELS.iter().filter(|k| matches!(k.file, "words" | "words_hopper")).map(|k| k.name).collect();
    assert!(kernels.len() >= 20, "{kernels:?}");
    let named = |kernel: &str| TESTS.iter().any(|test| code(test).contains(&format!("\"{kernel}\"")));
    let without: Vec<_> = kernels.into_iter().filter(|kernel| !named(kernel)).collect();
    assert_eq!(without, Vec::<&str>::new(), "kernels that no test names");
}
