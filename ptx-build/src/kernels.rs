//! The kernels of a folder: what is there, and the Rust code that launches it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::compile::{Compiled, TARGETS, Target};
use crate::signature::{self, Constants, GrammarError, Kernel, Param, Type};

/// A `.cu` file and the kernels in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelFile {
    /// The file.
    pub path: PathBuf,
    /// Its name without folder and ending.
    pub name: String,
    /// Its kernels, in order.
    pub kernels: Vec<Kernel>,
    /// The integers that it and its headers define, by name.
    pub constants: Constants,
    /// What nvcc compiles it for.
    pub targets: &'static [Target],
}

/// Where a folder's kernels run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// On GPUs and on the emulation. A file called `*_hopper.cu` needs an H100: of all [`TARGETS`] it is compiled for `sm_90a`.
    Everywhere,
    /// On the emulation only: mistakes that it must find.
    Emulation,
}

/// The kernels of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernels {
    pub(crate) folder: PathBuf,
    pub(crate) files: Vec<KernelFile>,
}

impl Kernels {
    /// Reads the `.cu` files of `folder`, by name.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Grammar`], and [`Error::Twice`] for a name that two kernels share.
    pub fn in_dir(folder: impl Into<PathBuf>) -> Result<Self, Error> {
        let folder = folder.into();
        Self { folder: folder.clone(), files: Vec::new() }.and(&folder, Where::Everywhere)
    }

    /// Adds the `.cu` files of another folder, whose headers are in the first.
    ///
    /// # Errors
    /// As [`in_dir`](Self::in_dir).
    pub fn and(mut self, folder: impl AsRef<Path>, place: Where) -> Result<Self, Error> {
        for path in with_ending(folder.as_ref(), "cu")? {
            self.files.push(read_file(&self.folder, path, place)?);
        }
        let mut names: Vec<_> = self.all().map(|k| k.name.as_str()).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(Error::Twice { kernel: pair[0].into() }),
            None => Ok(self),
        }
    }

    /// Every kernel.
    pub fn all(&self) -> impl Iterator<Item = &Kernel> {
        self.files.iter().flat_map(|f| &f.kernels)
    }

    /// Writes `kernels.rs` into `out`: a constant and a typed launcher per kernel, the table of all of them, and the compiled
    /// images by `include_bytes!`.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn write_bindings(&self, images: &[Compiled], out: &Path) -> Result<(), Error> {
        let mut code = String::from("// Generated from the signatures of the .cu files.\n\n");
        for (file, kernel) in self.files.iter().flat_map(|f| f.kernels.iter().map(move |k| (f, k))) {
            binding(&mut code, &file.name, kernel);
        }
        self.files.iter().for_each(|file| words(&mut code, file));
        let constants: Vec<_> = self.all().map(|k| format!("&{}", constant(k))).collect();
        line(&mut code, format_args!("/// Every kernel.\npub static KERNELS: &[&Kernel] = &[{}];", constants.join(", ")));
        code.push_str("/// Compiled kernels: file, architecture, code.\npub static IMAGES: &[Image] = &[\n");
        for image in images {
            let (file, arch, path) = (&image.file, image.target.arch, image.output.display().to_string());
            line(&mut code, format_args!("    Image {{ file: {file:?}, arch: {arch:?}, code: include_bytes!({path:?}) }},"));
        }
        code.push_str("];\n");
        write(&out.join("kernels.rs"), &code)
    }
}

/// Writes a file unless it is there already: its date tells whether anything changed.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Error> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::write(path, text).map_err(|source| Error::Write { path: path.into(), source })
}

/// Removes a file unless it is gone already.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(Error::Write { path: path.into(), source }),
        _ => Ok(()),
    }
}

/// The files of a folder with this ending, by name.
pub(crate) fn with_ending(folder: &Path, ending: &str) -> Result<Vec<PathBuf>, Error> {
    let list = || -> std::io::Result<Vec<PathBuf>> { fs::read_dir(folder)?.map(|e| Ok(e?.path())).collect() };
    let mut paths = list().map_err(|source| Error::Read { path: folder.into(), source })?;
    paths.retain(|p| p.extension().is_some_and(|e| e == ending));
    paths.sort();
    Ok(paths)
}

/// The texts of files.
pub(crate) fn texts(paths: &[PathBuf]) -> Result<Vec<String>, Error> {
    paths.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::Read { path: path.into(), source })
}

fn read_file(folder: &Path, path: PathBuf, place: Where) -> Result<KernelFile, Error> {
    let text = read(&path)?;
    let mut known = Constants::new();
    collect_constants(folder, &path, &text, &mut known)?;
    let kernels = signature::kernels(&path, &text, &known).map_err(Error::Grammar)?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let targets = match place {
        Where::Emulation => &[],
        Where::Everywhere if name.ends_with("_hopper") => &TARGETS[1..2],
        Where::Everywhere => &TARGETS[..],
    };
    Ok(KernelFile { path, name, kernels, constants: known, targets })
}

/// Constants of the included headers, then of the text itself.
fn collect_constants(folder: &Path, path: &Path, text: &str, known: &mut Constants) -> Result<(), Error> {
    for (line, name) in signature::includes(text).filter(|(_, name)| *name != "ptx.cuh") {
        let header = folder.join(name);
        let text = fs::read_to_string(&header).map_err(|source| {
            let what = format!("cannot read {}: {source}", header.display());
            Error::Grammar(GrammarError { file: path.display().to_string(), line, what })
        })?;
        collect_constants(folder, &header, &text, known)?;
    }
    signature::constants(text, known);
    Ok(())
}

fn constant(kernel: &Kernel) -> String {
    kernel.name.to_uppercase()
}

fn line(code: &mut String, text: std::fmt::Arguments) {
    writeln!(code, "{text}").expect("a String takes any text");
}

/// A module of the file's integers, of which `kThreads` becomes `THREADS`, and of the structs that its kernels take.
fn words(code: &mut String, file: &KernelFile) {
    line(code, format_args!("/// Integers and structs of `{}.cu`.\npub mod {} {{", file.name, file.name));
    for (name, value) in &file.constants {
        let mut rust = String::new();
        for c in name.strip_prefix('k').unwrap_or(name).chars() {
            if c.is_ascii_uppercase() && !rust.is_empty() {
                rust.push('_');
            }
            rust.push(c.to_ascii_uppercase());
        }
        line(code, format_args!("    /// `{name}`.\n    pub const {rust}: usize = {value};"));
    }
    let mut structs = BTreeMap::new();
    file.kernels.iter().flat_map(|k| &k.params).for_each(|p| collect_structs(&p.ty, &mut structs));
    if !structs.is_empty() {
        code.push_str("    use super::*;\n");
    }
    for (name, fields) in structs {
        line(
            code,
            format_args!("    /// `{name}`.\n    #[repr(C)]\n    #[derive(Debug, Clone, Copy)]\n    pub struct {name} {{"),
        );
        for field in fields {
            line(
                code,
                format_args!("        /// `{}`.\n        pub {}: {},", field.name, field.name, rust_type(&file.name, &field.ty)),
            );
        }
        code.push_str("    }\n");
    }
    code.push_str("}\n");
}

/// The fields of a struct and of those in it, by name.
fn collect_structs<'a>(ty: &'a Type, found: &mut BTreeMap<&'a str, &'a [Param]>) {
    match ty {
        Type::Array(of, _) => collect_structs(of, found),
        Type::Struct(name, fields) => {
            fields.iter().for_each(|field| collect_structs(&field.ty, found));
            found.insert(name, fields);
        }
        Type::In(_) | Type::Out(_) | Type::Scalar(_) | Type::TensorMap => {}
    }
}

/// The Rust name of a type of a file.
fn rust_type(file: &str, ty: &Type) -> String {
    match ty {
        Type::In(element) => format!("In<{element}>"),
        Type::Out(element) => format!("Out<{element}>"),
        Type::Scalar(name) => (*name).into(),
        Type::TensorMap => "TensorMap".into(),
        Type::Struct(name, _) => format!("{file}::{name}"),
        Type::Array(of, count) => format!("[{}; {count}]", rust_type(file, of)),
    }
}

fn binding(code: &mut String, file: &str, kernel: &Kernel) {
    let Kernel { name, threads, shared, params } = kernel;
    let constant = constant(kernel);
    let each = |part: &dyn Fn(&Param) -> String| params.iter().map(part).collect::<Vec<_>>().join(", ");
    let sizes = each(&|p| format!("size_of::<{}>() as u32", rust_type(file, &p.ty)));
    let declared = each(&|p| format!("mut {}: {}", p.name, rust_type(file, &p.ty)));
    let pointers = each(&|p| format!("(&raw mut {}).cast()", p.name));
    line(code, format_args!("/// `{name}` of `{file}.cu`."));
    line(
        code,
        format_args!(
            "pub static {constant}: Kernel = Kernel {{ name: {name:?}, file: {file:?}, threads: {threads}, shared: {shared}, \
             params: &[{sizes}] }};"
        ),
    );
    line(
        code,
        format_args!(
            "/// Launches [`{constant}`].\n\
             ///\n\
             /// # Safety\n\
             /// Every pointer covers what the kernel touches on this grid.\n\
             pub unsafe fn {name}(launcher: &dyn Launcher, grid: [u32; 3], {declared}) -> Result<()> {{\n    \
                 let mut args: [*mut c_void; {n}] = [{pointers}];\n    \
                 // SAFETY: the arguments have the kernel's types; the rest is the caller's promise.\n    \
                 unsafe {{ launcher.launch(&{constant}, grid, &mut args) }}\n\
             }}\n",
            n = params.len()
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn constants_come_from_headers_too() {
        let s = Scratch::new("headers");
        s.file("kernels/ptx.cuh", "#include \"gone.h\"\n");
        s.file("kernels/tile.cuh", "#include \"ptx.cuh\"\nconstexpr int kThreads = 64;\n");
        s.file("kernels/a.cu", "#include \"tile.cuh\"\nKERNEL(kThreads) a(int n) {}\n");
        let kernels = Kernels::in_dir(s.path("kernels")).unwrap();
        assert_eq!(kernels.all().map(|k| k.threads).collect::<Vec<_>>(), [64]);
    }

    #[test]
    fn a_missing_header_is_named_where_it_is_included() {
        let s = Scratch::new("header");
        let tile = s.file("kernels/tile.cuh", "\n#include \"gone.cuh\"\n");
        s.file("kernels/a.cu", "#include \"tile.cuh\"\n");
        let error = Kernels::in_dir(s.path("kernels")).unwrap_err().to_string();
        let expected = format!("{}:2: cannot read {}: ", tile.display(), s.path("kernels/gone.cuh").display());
        assert!(error.starts_with(&expected), "{error}");
    }

    #[test]
    fn two_kernels_of_one_name_are_refused() {
        let s = Scratch::new("twice");
        s.file("kernels/a.cu", "KERNEL(32) f(int n) {}\n");
        s.file("kernels/b.cu", "KERNEL(32) f(int n) {}\n");
        let error = Kernels::in_dir(s.path("kernels")).unwrap_err();
        assert_eq!(error.to_string(), "two kernels are called f");
    }

    #[test]
    fn a_folder_without_kernels_is_empty_and_a_missing_one_an_error() {
        let s = Scratch::new("nothing");
        s.file("kernels/README.md", "");
        assert_eq!(Kernels::in_dir(s.path("kernels")).unwrap().all().count(), 0);
        assert!(matches!(Kernels::in_dir(s.path("gone")), Err(Error::Read { .. })));
    }

    #[test]
    fn the_bindings_are_typed_and_hold_the_images() {
        let s = Scratch::new("bindings");
        s.file("kernels/a.cu", "constexpr int kTileK = 6 * 3;\nKERNEL(32, 64) half_it(bf16* y, const float* x, int n) {}\n");
        s.file("out/keep", "");
        let kernels = Kernels::in_dir(s.path("kernels")).unwrap();
        let image = Compiled { file: "a".into(), target: TARGETS[0], output: "/x/a.sm_80.cubin".into(), resources: vec![] };
        kernels.write_bindings(&[image], &s.path("out")).unwrap();
        let code = fs::read_to_string(s.path("out/kernels.rs")).unwrap();
        for expected in [
            "pub static HALF_IT: Kernel = Kernel { name: \"half_it\", file: \"a\", threads: 32, shared: 64, \
             params: &[size_of::<Out<bf16>>() as u32, size_of::<In<f32>>() as u32, size_of::<i32>() as u32] };",
            "pub unsafe fn half_it(launcher: &dyn Launcher, grid: [u32; 3], mut y: Out<bf16>, mut x: In<f32>, mut n: i32) -> Result<()>",
            "pub mod a {\n    /// `kTileK`.\n    pub const TILE_K: usize = 18;\n}",
            "pub static KERNELS: &[&Kernel] = &[&HALF_IT];",
            "Image { file: \"a\", arch: \"sm_80\", code: include_bytes!(\"/x/a.sm_80.cubin\") },",
        ] {
            assert!(code.contains(expected), "{expected} is not in\n{code}");
        }
    }

    #[test]
    fn structs_are_bound_with_those_in_them() {
        let s = Scratch::new("structs");
        let structs = "\nstruct Row {\n    bf16* y;\n};\nstruct Rows {\n    Row rows[2];\n    int n;\n};\n";
        s.file("kernels/a.cu", &format!("{structs}KERNEL(32) f(const __grid_constant__ Rows r) {{}}\n"));
        s.file("out/keep", "");
        Kernels::in_dir(s.path("kernels")).unwrap().write_bindings(&[], &s.path("out")).unwrap();
        let code = fs::read_to_string(s.path("out/kernels.rs")).unwrap();
        for expected in [
            "params: &[size_of::<a::Rows>() as u32] };",
            "pub unsafe fn f(launcher: &dyn Launcher, grid: [u32; 3], mut r: a::Rows) -> Result<()>",
            "    pub struct Row {\n        /// `y`.\n        pub y: Out<bf16>,\n    }\n",
            "    pub struct Rows {\n        /// `rows`.\n        pub rows: [a::Row; 2],\n        /// `n`.\n        pub n: i32,\n    }\n",
        ] {
            assert!(code.contains(expected), "{expected} is not in\n{code}");
        }
    }
}
