//! Reads the kernels of a `.cu` file: the restricted grammar that makes their launchers typed.
//!
//! ```text
//! constexpr int kThreads = 128;
//! KERNEL(kThreads) scale(bf16* y, const bf16* x, float factor, int n) { … }
//! KERNEL(kThreads, kSharedBytes, kBlocks) other(…) { … }
//!
//! struct Matrix {
//!     const bf16* data;
//!     int rows[kMost];
//! };
//! KERNEL(kThreads) with_struct(const __grid_constant__ Matrix m) { … }
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// One kernel: what its launcher has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Name of the entry point.
    pub name: String,
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory of a block.
    pub shared: u32,
    /// Parameters in order.
    pub params: Vec<Param>,
}

/// One parameter of a kernel, or one field of a struct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: Type,
}

/// Types that a kernel may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// Device memory that is read: the Rust name of its elements.
    In(&'static str),
    /// Device memory that is written.
    Out(&'static str),
    /// A number, by its Rust name.
    Scalar(&'static str),
    /// A tensor map, by value.
    TensorMap,
    /// A struct of the same file, by value.
    Struct(String, Vec<Param>),
    /// So many of them, as a field of a struct.
    Array(Box<Type>, u32),
}

/// `(C++, Rust)` names of what pointers point to.
const ELEMENTS: [(&str, &str); 5] =
    [("bf16", "bf16"), ("float", "f32"), ("double", "f64"), ("uint32_t", "u32"), ("uint64_t", "u64")];
/// `(C++, Rust)` names of scalars.
const SCALARS: [(&str, &str); 5] =
    [("int", "i32"), ("uint32_t", "u32"), ("int64_t", "i64"), ("uint64_t", "u64"), ("float", "f32")];

/// Something outside the grammar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrammarError {
    /// File as it was named.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for GrammarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

impl std::error::Error for GrammarError {}

/// Integer constants by name.
pub type Constants = BTreeMap<String, i64>;

/// A source text without comments, with its lines where they were.
struct Source<'a> {
    file: &'a str,
    code: String,
}

impl<'a> Source<'a> {
    fn new(file: &'a str, text: &str) -> Self {
        Self { file, code: without_comments(text) }
    }

    fn error(&self, at: usize, what: impl Into<String>) -> GrammarError {
        let line = self.code[..at].matches('\n').count() + 1;
        GrammarError { file: self.file.into(), line, what: what.into() }
    }
}

/// Comments become blanks; line ends stay.
fn without_comments(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("//").into_iter().chain(rest.find("/*")).min() {
        code.push_str(&rest[..start]);
        let comment = &rest[start..];
        let end = if comment.starts_with("//") { comment.find('\n') } else { comment.find("*/").map(|end| end + 2) };
        let (gone, after) = comment.split_at(end.unwrap_or(comment.len()));
        code.extend(gone.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = after;
    }
    code + rest
}

/// The constants that a text defines on top of `known`: `constexpr int kName = <integers, names, + - * / ( )>;` at the
/// start of a line. Definitions that need a compiler are left out; a kernel that uses one is refused.
pub fn constants(text: &str, known: &mut Constants) {
    for line in without_comments(text).split_inclusive('\n').map(str::trim_end) {
        let Some(definition) = line.strip_prefix("constexpr int ").and_then(|l| l.strip_suffix(';')) else { continue };
        if let Some((name, expression)) = definition.split_once('=')
            && let Some(value) = evaluate(expression, known).filter(|v| *v >= 0)
        {
            known.insert(name.trim().into(), value);
        }
    }
}

/// The project's headers that a text includes: line, from 1, and name.
pub fn includes(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines()).filter_map(|(n, line)| Some((n, line.trim().strip_prefix("#include \"")?.split('"').next()?)))
}

/// The kernels of one file, whose constants are `known`.
pub fn kernels(file: &Path, text: &str, known: &Constants) -> Result<Vec<Kernel>, GrammarError> {
    let file = file.display().to_string();
    let source = Source::new(&file, text);
    let mut found = Vec::new();
    let mut line_start = 0;
    for line in source.code.split_inclusive('\n') {
        match line.rfind("KERNEL") {
            Some(0) if line.starts_with("KERNEL(") => found.push(kernel(&source, line_start + "KERNEL".len(), known)?),
            Some(at) => return Err(source.error(line_start + at, "KERNEL(threads) starts a line, or nothing would launch it")),
            None => {}
        }
        if let Some(at) = line.find("__global__") {
            return Err(source.error(line_start + at, "kernels are declared with KERNEL(threads)"));
        }
        line_start += line.len();
    }
    Ok(found)
}

/// The text between the parenthesis at `open` and its partner, and the place after it.
fn parenthesised<'s>(source: &'s Source, open: usize) -> Result<(&'s str, usize), GrammarError> {
    let mut depth = 0;
    for (i, c) in source.code[open..].char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 1 => return Ok((&source.code[open + 1..open + i], open + i + 1)),
            ')' => depth -= 1,
            _ => {}
        }
    }
    Err(source.error(open, "this parenthesis is never closed"))
}

fn kernel(source: &Source, open: usize, known: &Constants) -> Result<Kernel, GrammarError> {
    let (launch, after) = parenthesised(source, open)?;
    let number = |expression: &str, what: &str, most: i64| {
        let value = evaluate(expression, known);
        let fits = value.filter(|v| (0..=most).contains(v)).and_then(|v| u32::try_from(v).ok());
        fits.ok_or_else(|| source.error(open, format!("{what} {:?} is no integer from 0 to {most}", expression.trim())))
    };
    let mut launch = launch.split(',');
    let mut next = |what: &str, most: i64| launch.next().map_or(Ok(0), |expression| number(expression, what, most));
    let (threads, shared) = (next("thread count", 1024)?, next("shared memory", 232_448)?);
    next("blocks on a processor", 32)?;
    if threads == 0 || threads % 32 != 0 {
        return Err(source.error(open, format!("{threads} threads are not a number of warps")));
    }
    let head = source.code[after..].find('(').map(|n| (source.code[after..after + n].trim(), after + n));
    let Some((name, list)) = head.filter(|(name, _)| is_identifier(name)) else {
        return Err(source.error(after, "KERNEL(threads) is followed by a name and its parameters"));
    };
    let (params, after) = parenthesised(source, list)?;
    if !source.code[after..].trim_start().starts_with('{') {
        return Err(source.error(after, format!("the body of {name} follows its parameters")));
    }
    let params = params
        .split(',')
        .map(|p| param(source, p, known).map_err(|what| source.error(list, format!("{name}: {what}"))))
        .collect::<Result<_, _>>()?;
    Ok(Kernel { name: name.into(), threads, shared, params })
}

fn param(source: &Source, text: &str, known: &Constants) -> Result<Param, String> {
    match text.split_whitespace().collect::<Vec<_>>()[..] {
        ["const", "__grid_constant__", "TensorMap", name] => Ok(Param { name: name.into(), ty: Type::TensorMap }),
        ["const", "__grid_constant__", of, name] => Ok(Param { name: name.into(), ty: structure(source, of, known)? }),
        _ => plain(text).ok_or_else(|| format!("parameter `{}` is outside the kernel grammar", shown(text))),
    }
}

fn shown(declaration: &str) -> String {
    declaration.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A pointer or a number.
fn plain(text: &str) -> Option<Param> {
    let text = text.replace("__restrict__", " ").replace('*', " * ");
    let rust = |table: &[(&str, &'static str)], name: &str| table.iter().find(|(c, _)| *c == name).map(|(_, rust)| *rust);
    let (ty, name) = match text.split_whitespace().collect::<Vec<_>>()[..] {
        [element, "*", name] => (rust(&ELEMENTS, element).map(Type::Out), name),
        ["const", element, "*", name] => (rust(&ELEMENTS, element).map(Type::In), name),
        [scalar, name] => (rust(&SCALARS, scalar).map(Type::Scalar), name),
        _ => return None,
    };
    ty.filter(|_| is_identifier(name)).map(|ty| Param { name: name.into(), ty })
}

/// A struct whose fields are pointers, numbers, structs, and arrays of them.
fn structure(source: &Source, name: &str, known: &Constants) -> Result<Type, String> {
    let body = source.code.split_once(&format!("\nstruct {name} {{\n")).and_then(|(_, after)| after.split_once("\n};"));
    let (body, _) = body.ok_or_else(|| format!("struct {name} is not in this file"))?;
    let fields = body.split(';').map(str::trim).filter(|field| !field.is_empty());
    let field = |text| field(source, text, known).map_err(|what| format!("struct {name}: {what}"));
    Ok(Type::Struct(name.into(), fields.map(field).collect::<Result<_, _>>()?))
}

fn field(source: &Source, text: &str, known: &Constants) -> Result<Param, String> {
    if let Some((of, count)) = text.strip_suffix(']').and_then(|text| text.split_once('[')) {
        let Param { name, ty } = field(source, of, known)?;
        let count = evaluate(count.trim(), known).and_then(|n| u32::try_from(n).ok());
        let count = count.ok_or_else(|| format!("the length of `{}` is no integer", shown(text)))?;
        return Ok(Param { name, ty: Type::Array(Box::new(ty), count) });
    }
    if let Some(field) = plain(text) {
        return Ok(field);
    }
    match text.split_whitespace().collect::<Vec<_>>()[..] {
        [of, name] if is_identifier(of) && is_identifier(name) => {
            Ok(Param { name: name.into(), ty: structure(source, of, known)? })
        }
        _ => Err(format!("field `{}` is outside the kernel grammar", shown(text))),
    }
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The value of a sum of products of integers and known names; `None` for anything else.
fn evaluate(expression: &str, known: &Constants) -> Option<i64> {
    let mut parser = Expression { rest: expression.trim(), known };
    let value = parser.sum()?;
    parser.rest.is_empty().then_some(value)
}

struct Expression<'a> {
    rest: &'a str,
    known: &'a Constants,
}

impl<'a> Expression<'a> {
    /// The next operator, if it is one of `any`.
    fn operator(&mut self, any: &[char]) -> Option<char> {
        let c = self.rest.chars().next().filter(|c| any.contains(c))?;
        self.rest = self.rest[1..].trim_start();
        Some(c)
    }

    fn sum(&mut self) -> Option<i64> {
        let mut value = self.product()?;
        while let Some(op) = self.operator(&['+', '-']) {
            let right = self.product()?;
            value = if op == '+' { value.checked_add(right)? } else { value.checked_sub(right)? };
        }
        Some(value)
    }

    fn product(&mut self) -> Option<i64> {
        let mut value = self.atom()?;
        while let Some(op) = self.operator(&['*', '/']) {
            let right = self.atom()?;
            value = if op == '*' { value.checked_mul(right)? } else { value.checked_div(right)? };
        }
        Some(value)
    }

    fn atom(&mut self) -> Option<i64> {
        if self.operator(&['(']).is_some() {
            let value = self.sum()?;
            return self.operator(&[')']).map(|_| value);
        }
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(self.rest.len());
        let (word, rest): (&'a str, _) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        word.parse().ok().or_else(|| self.known.get(word).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Kernel>, GrammarError> {
        let mut known = Constants::new();
        constants(text, &mut known);
        kernels(Path::new("kernels/x.cu"), text, &known)
    }

    #[test]
    fn a_kernel_is_read_with_its_numbers_and_types() {
        let text = "// KERNEL(1) not_this(int n) {}\n\
                    constexpr int kWarps = 4;  // of a block\n\
                    constexpr int kThreads = kWarps * 32;\n\
                    constexpr int kShared = (kThreads + 8) * 2 - 16 / 4;\n\
                    KERNEL(kThreads, kShared) scale(bf16* y, const float* __restrict__ x,\n    \
                        const uint64_t *table, float factor, int64_t n) {\n}\n";
        let param = |name: &str, ty| Param { name: name.into(), ty };
        let params = vec![
            param("y", Type::Out("bf16")),
            param("x", Type::In("f32")),
            param("table", Type::In("u64")),
            param("factor", Type::Scalar("f32")),
            param("n", Type::Scalar("i64")),
        ];
        assert_eq!(read(text), Ok(vec![Kernel { name: "scale".into(), threads: 128, shared: 268, params }]));
    }

    #[test]
    fn a_struct_is_read_with_those_in_it() {
        let text = "constexpr int kMost = 3;\n\
                    struct Row {\n    const bf16* x;  // its elements\n    int width;\n};\n\
                    struct Rows {\n    Row rows[kMost * 2];\n    float scale;\n};\n\
                    KERNEL(32) f(const __grid_constant__ Rows r) {\n}\n";
        let param = |name: &str, ty| Param { name: name.into(), ty };
        let row = Type::Struct("Row".into(), vec![param("x", Type::In("bf16")), param("width", Type::Scalar("i32"))]);
        let rows = vec![param("rows", Type::Array(Box::new(row), 6)), param("scale", Type::Scalar("f32"))];
        assert_eq!(read(text).unwrap()[0].params, [param("r", Type::Struct("Rows".into(), rows))]);
    }

    #[test]
    fn what_is_outside_the_grammar_is_named_with_its_place() {
        for (text, expected) in [
            ("\nKERNEL(32) f(half* y) {", "kernels/x.cu:2: f: parameter `half* y` is outside the kernel grammar"),
            ("KERNEL(32) f(int) {", "kernels/x.cu:1: f: parameter `int` is outside the kernel grammar"),
            ("KERNEL(32) f(const __grid_constant__ S s) {", "kernels/x.cu:1: f: struct S is not in this file"),
            (
                "\nstruct S {\n    half h;\n};\nKERNEL(32) f(const __grid_constant__ S s) {",
                "kernels/x.cu:5: f: struct S: struct half is not in this file",
            ),
            (
                "\nstruct S {\n    int a, b;\n};\nKERNEL(32) f(const __grid_constant__ S s) {",
                "kernels/x.cu:5: f: struct S: field `int a, b` is outside the kernel grammar",
            ),
            (
                "\nstruct S {\n    int a[n];\n};\nKERNEL(32) f(const __grid_constant__ S s) {",
                "kernels/x.cu:5: f: struct S: the length of `int a[n]` is no integer",
            ),
            ("KERNEL(33) f(int n) {", "kernels/x.cu:1: 33 threads are not a number of warps"),
            ("KERNEL(kThreads) f(int n) {", "kernels/x.cu:1: thread count \"kThreads\" is no integer from 0 to 1024"),
            ("KERNEL(32, 300000) f(int n) {", "kernels/x.cu:1: shared memory \"300000\" is no integer from 0 to 232448"),
            ("KERNEL(32) (int n) {", "kernels/x.cu:1: KERNEL(threads) is followed by a name and its parameters"),
            ("KERNEL(32) f(int n);", "kernels/x.cu:1: the body of f follows its parameters"),
            ("KERNEL(32", "kernels/x.cu:1: this parenthesis is never closed"),
            ("/* a\n */ __global__ void f() {}", "kernels/x.cu:2: kernels are declared with KERNEL(threads)"),
            ("\n  KERNEL(32) f(int n) {}", "kernels/x.cu:2: KERNEL(threads) starts a line, or nothing would launch it"),
            ("static KERNEL(32) f(int n) {}", "kernels/x.cu:1: KERNEL(threads) starts a line, or nothing would launch it"),
            ("KERNEL (32) f(int n) {}", "kernels/x.cu:1: KERNEL(threads) starts a line, or nothing would launch it"),
            (
                "KERNEL(32) f(int n) {} KERNEL(32) g(int n) {}",
                "kernels/x.cu:1: KERNEL(threads) starts a line, or nothing would launch it",
            ),
        ] {
            assert_eq!(read(text).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn a_constant_that_needs_a_compiler_is_unknown() {
        let mut known = Constants::new();
        constants("constexpr int kA = sizeof(float);\nconstexpr int kB = 4 / 0;\nconstexpr int kC = 3;\n", &mut known);
        assert_eq!(known, Constants::from([("kC".into(), 3)]));
    }

    #[test]
    fn headers_are_found() {
        let text = "#include \"ptx.cuh\"\n#include <stdint.h>\n  #include \"reduce.cuh\"\n";
        assert_eq!(includes(text).collect::<Vec<_>>(), [(1, "ptx.cuh"), (3, "reduce.cuh")]);
    }
}
