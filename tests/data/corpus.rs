//! The cache: hit, miss, damage; what a document becomes.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use ltrain::data::cache_folder::cache_folders;
use ltrain::data::{CacheUse, Corpus, CorpusOptions, Encode, Progress, Reading, SkipReason, Sources, Specials};

use super::{BOS, BOTH, Bytes, EOS, NEITHER, folder, paths, told};

struct Setup {
    data: tempfile::TempDir,
    cache: tempfile::TempDir,
    tokenizer: Bytes,
}

impl Setup {
    fn new(files: &[(&str, &[u8])]) -> Self {
        Self { data: folder(files), cache: folder(&[]), tokenizer: Bytes::default() }
    }

    fn open(&self, specials: Specials) -> ltrain::Result<Corpus> {
        let options = CorpusOptions { reading: Reading::default(), specials, cache: vec![self.cache.path().into()] };
        let sources = Sources::collect(&paths(&self.data, &[""]))?;
        Corpus::open(&sources, &self.tokenizer, &options, &|_| {})
    }

    fn calls(&self) -> usize {
        self.tokenizer.calls.load(Ordering::Relaxed)
    }

    fn cached(&self) -> Vec<PathBuf> {
        fs::read_dir(self.cache.path()).unwrap().map(|e| e.unwrap().path()).collect()
    }
}

const FILES: &[(&str, &[u8])] = &[("a.txt", b"abc"), ("b.jsonl", b"{\"text\": \"d\"}\n{\"text\": \" \"}\n{\"text\": \"ef\"}\n")];

fn all(corpus: &Corpus) -> Vec<Vec<u32>> {
    (0..corpus.docs()).map(|i| corpus.doc(i).to_vec()).collect()
}

#[test]
fn documents_keep_their_boundaries_and_get_special_tokens() {
    let corpus = Setup::new(FILES).open(BOTH).unwrap();
    let wrap = |text: &str| {
        let ids = text.bytes().map(u32::from);
        [BOS].into_iter().chain(ids).chain([EOS]).collect::<Vec<_>>()
    };
    assert_eq!(all(&corpus), [wrap("abc"), wrap("d"), wrap("ef")]);
    assert_eq!((corpus.tokens(), corpus.longest()), (12, 5));
    assert_eq!(corpus.skipped.count(SkipReason::Empty), 1);
}

#[test]
fn the_second_run_reads_the_cache_and_tells_the_same() {
    let setup = Setup::new(FILES);
    let first = setup.open(BOTH).unwrap();
    assert!(matches!(&first.cache, CacheUse::Built(path) if path.exists()));
    assert_eq!(setup.calls(), 3);
    let second = setup.open(BOTH).unwrap();
    assert!(matches!(second.cache, CacheUse::Hit(_)));
    assert_eq!(setup.calls(), 3);
    assert_eq!(all(&first), all(&second));
    assert_eq!(first.skipped, second.skipped);
    assert_eq!(setup.cached().len(), 1, "no temporary files stay");
}

#[test]
fn other_options_or_other_text_are_another_cache() {
    let setup = Setup::new(FILES);
    setup.open(BOTH).unwrap();
    assert!(matches!(setup.open(NEITHER).unwrap().cache, CacheUse::Built(_)));
    fs::write(setup.data.path().join("a.txt"), "abd").unwrap();
    assert!(matches!(setup.open(BOTH).unwrap().cache, CacheUse::Built(_)));
    assert_eq!(setup.cached().len(), 3);
}

#[test]
fn a_renamed_file_is_the_same_text() {
    let setup = Setup::new(FILES);
    setup.open(BOTH).unwrap();
    let path = |name| setup.data.path().join(name);
    fs::rename(path("a.txt"), path("aa.txt")).unwrap();
    assert!(matches!(setup.open(BOTH).unwrap().cache, CacheUse::Hit(_)));
}

#[test]
fn every_kind_of_damage_is_found_and_repaired() {
    let setup = Setup::new(FILES);
    let good = all(&setup.open(BOTH).unwrap());
    let path = setup.cached().remove(0);
    let bytes = fs::read(&path).unwrap();
    for cut in [0, 7, 63, 64, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..cut]).unwrap();
        let corpus = setup.open(BOTH).unwrap();
        assert!(matches!(corpus.cache, CacheUse::Rebuilt { .. }), "cut to {cut} bytes");
        assert_eq!(all(&corpus), good);
    }
    // The last word of the header is unused.
    for at in (0..56).chain(64..bytes.len()) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        fs::write(&path, &flipped).unwrap();
        let corpus = setup.open(BOTH).unwrap();
        assert!(matches!(corpus.cache, CacheUse::Rebuilt { .. }), "bit flipped in byte {at}");
        assert_eq!(all(&corpus), good);
    }
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn two_runs_at_once_do_not_clash() {
    let setup = Setup::new(FILES);
    let good = all(&setup.open(BOTH).unwrap());
    fs::remove_file(&setup.cached()[0]).unwrap();
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..8).map(|_| scope.spawn(|| setup.open(BOTH).unwrap())).collect();
        for run in runs {
            assert_eq!(all(&run.join().unwrap()), good);
        }
    });
    assert_eq!(setup.cached().len(), 1);
}

#[test]
fn text_without_content_is_an_error_with_counts() {
    let setup = Setup::new(&[("a.txt", b" "), ("b.txt", b"")]);
    let (what, e) = told(setup.open(BOTH).unwrap_err());
    assert_eq!(what, "the data holds no text: 2 files read, no document with content");
    assert_eq!(e.facts, ["skipped: 2 empty"]);
    assert!(setup.cached().is_empty());
}

#[test]
fn an_error_in_the_data_leaves_no_file() {
    let setup = Setup::new(&[("a.txt", b"fine"), ("b.jsonl", b"{")]);
    setup.open(BOTH).unwrap_err();
    assert!(setup.cached().is_empty());
}

#[test]
fn a_file_that_changes_meanwhile_is_noticed() {
    /// Appends to the file it is asked to tokenise.
    struct Meddler(PathBuf);
    impl Encode for Meddler {
        fn encode(&self, _: &str) -> ltrain::Result<Vec<u32>> {
            Ok(vec![1])
        }
        fn bos(&self) -> Option<u32> {
            None
        }
        fn eos(&self) -> Option<u32> {
            None
        }
        fn identity(&self) -> String {
            fs::write(&self.0, "something else").unwrap();
            "meddler".into()
        }
    }
    let setup = Setup::new(FILES);
    let sources = Sources::collect(&paths(&setup.data, &[""])).unwrap();
    let options = CorpusOptions { reading: Reading::default(), specials: NEITHER, cache: vec![setup.cache.path().into()] };
    let meddler = Meddler(setup.data.path().join("a.txt"));
    let error = Corpus::open(&sources, &meddler, &options, &|_| {}).unwrap_err();
    assert_eq!(error.to_string(), "the data changed while it was being read");
}

#[test]
fn progress_ends_at_the_total() {
    let setup = Setup::new(FILES);
    let sources = Sources::collect(&paths(&setup.data, &["b.jsonl"])).unwrap();
    let options = CorpusOptions { reading: Reading::default(), specials: BOTH, cache: vec![setup.cache.path().into()] };
    let seen = RefCell::new(Vec::new());
    Corpus::open(&sources, &setup.tokenizer, &options, &|p| seen.borrow_mut().push(p)).unwrap();
    let bytes = sources.bytes();
    let done = Progress { bytes_done: bytes, bytes_total: bytes };
    assert_eq!(seen.borrow().last(), Some(&done));
}

#[test]
fn the_first_writable_cache_folder_is_used() {
    let setup = Setup::new(FILES);
    let sources = Sources::collect(&paths(&setup.data, &[""])).unwrap();
    // A folder cannot be made below a file, whoever asks.
    let blocked = setup.data.path().join("a.txt/cache");
    let options = |cache| CorpusOptions { reading: Reading::default(), specials: BOTH, cache };
    let both = options(vec![blocked.clone(), setup.cache.path().join("deep/er")]);
    let corpus = Corpus::open(&sources, &setup.tokenizer, &both, &|_| {}).unwrap();
    assert!(matches!(&corpus.cache, CacheUse::Built(path) if path.starts_with(setup.cache.path())));
    let alone = options(vec![blocked]);
    Corpus::open(&sources, &setup.tokenizer, &alone, &|_| {}).unwrap_err();
}

#[test]
fn cache_folders_follow_the_environment() {
    let run = Path::new("run");
    let with = |vars: &'static [(&str, &str)]| {
        move |name: &str| {
            let found = vars.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        }
    };
    let all = with(&[("LTRAIN_CACHE", "/l"), ("XDG_CACHE_HOME", "/x"), ("HOME", "/h")]);
    assert_eq!(cache_folders(Some(Path::new("asked")), &all, run), [Path::new("asked")]);
    assert_eq!(cache_folders(None, &all, run), [Path::new("/l")]);
    let xdg = with(&[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")]);
    assert_eq!(cache_folders(None, &xdg, run), [Path::new("/x/ltrain"), Path::new("run/cache")]);
    assert_eq!(cache_folders(None, &with(&[]), run), [Path::new("run/cache")]);
}

#[test]
fn a_cache_folder_that_may_not_be_read_is_passed_over() {
    use std::os::unix::fs::PermissionsExt;
    let (setup, own) = (Setup::new(FILES), folder(&[]));
    let open = || {
        let cache = vec![setup.cache.path().into(), own.path().into()];
        let options = CorpusOptions { reading: Reading::default(), specials: BOTH, cache };
        Corpus::open(&Sources::collect(&paths(&setup.data, &[""])).unwrap(), &setup.tokenizer, &options, &|_| {})
    };
    let allow = |mode| fs::set_permissions(setup.cache.path(), fs::Permissions::from_mode(mode)).unwrap();
    allow(0o000);
    if fs::read_dir(setup.cache.path()).is_ok() {
        println!("unreadable cache: skipped (this user may read everything)");
        return allow(0o700);
    }
    let opened = open();
    allow(0o700);
    assert!(matches!(opened.unwrap().cache, CacheUse::Built(path) if path.starts_with(own.path())));
}

#[test]
fn what_a_killed_process_left_goes_after_a_day() {
    let setup = Setup::new(FILES);
    let day = std::time::Duration::from_secs(25 * 60 * 60);
    let leave = |name: &str, age| {
        let path = setup.cache.path().join(name);
        let file = fs::File::create(&path).unwrap();
        file.set_modified(std::time::SystemTime::now() - age).unwrap();
        path
    };
    let key = "0123456789abcdef".repeat(4);
    let old = leave(&format!("{key}.4711-1790000000000000000-0.tmp"), day);
    let kept = [
        leave(&format!("{key}.4712-1790000000000000001-0.tmp"), day / 25),
        leave(&format!("{key}.tokens"), day),
        leave("letter.4711-1790000000000000000-0.tmp", day),
        leave(&format!("{key}.draft.tmp"), day),
    ];
    setup.open(BOTH).unwrap();
    assert!(!old.exists());
    kept.iter().for_each(|path| assert!(path.exists(), "{}", path.display()));
}
