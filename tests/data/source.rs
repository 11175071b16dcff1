//! One test per malformed input.

use ltrain::data::{Columns, Example, Reading, SkipReason, SkipReport, Sources};
use ltrain::error::{Error, Explanation};

use super::{folder, paths, told};

fn read(dir: &tempfile::TempDir, names: &[&str]) -> Result<(Vec<String>, SkipReport), Error> {
    read_columns(dir, names, "text=text")
}

fn read_columns(dir: &tempfile::TempDir, names: &[&str], columns: &str) -> Result<(Vec<String>, SkipReport), Error> {
    let columns: Columns = columns.parse()?;
    let sources = Sources::collect(&paths(dir, names))?;
    let mut texts = Vec::new();
    let reading = Reading { columns, ..Reading::default() };
    let pass = sources.read(&reading, &mut |document| {
        let Example::Text(text) = document.example else { panic!("{:?} is text", document.example) };
        texts.push(text);
        Ok(())
    })?;
    assert_eq!(pass.hash, sources.hash()?);
    Ok((texts, pass.skipped))
}

fn refused(files: &[(&str, &[u8])], name: &str) -> (String, Explanation) {
    told(read(&folder(files), &[name]).unwrap_err())
}

#[test]
fn folders_are_read_in_order_of_names_each_file_once_hidden_ones_never() {
    let dir = folder(&[
        ("b.md", b"two"),
        ("a/z.TXT", b"one"),
        ("c.jsonl", b"{\"text\": \"three\"}\n\n{\"x\": 1, \"text\": \"four\"}"),
        (".git/x.txt", b"hidden"),
        ("picture.png", b"\0\0"),
    ]);
    let (texts, skipped) = read(&dir, &["", "b.md"]).unwrap();
    assert_eq!(texts, ["one", "two", "three", "four"]);
    assert_eq!(skipped.total(), 0);
}

#[cfg(unix)]
#[test]
fn a_link_to_a_folder_above_ends() {
    let dir = folder(&[("a/x.txt", b"one")]);
    std::os::unix::fs::symlink(dir.path(), dir.path().join("a/up")).unwrap();
    assert_eq!(read(&dir, &[""]).unwrap().0, ["one"]);
}

#[test]
fn empty_documents_are_skipped_and_counted() {
    let dir =
        folder(&[("a.txt", b" \n\t"), ("b.txt", b""), ("c.jsonl", b"{\"text\": \"\"}\n{\"text\": null}\n{\"text\": \"x\"}\n")]);
    let (texts, skipped) = read(&dir, &[""]).unwrap();
    assert_eq!(texts, ["x"]);
    assert_eq!(skipped.count(SkipReason::Empty), 4);
    assert_eq!(skipped.to_string(), "4 empty");
}

#[test]
fn a_byte_order_mark_is_not_text() {
    let dir = folder(&[("a.txt", b"\xEF\xBB\xBFhello")]);
    assert_eq!(read(&dir, &["a.txt"]).unwrap().0, ["hello"]);
}

#[test]
fn a_missing_path_is_named() {
    let (what, e) = refused(&[], "nowhere");
    assert!(what.starts_with("no such file or folder: ") && what.contains("nowhere"), "{what}");
    assert_eq!(e.exit_code(), 3);
}

#[test]
fn a_folder_without_text_lists_what_is_there() {
    let (what, e) = refused(&[("d/a.pdf", b""), ("d/b.pdf", b""), ("d/c", b"")], "d");
    assert!(what.starts_with("no text files found in"), "{what}");
    assert_eq!(e.facts, ["looked for: .txt, .md, .jsonl; found instead: 2 .pdf, 1 without an ending"]);
}

#[test]
fn an_unknown_kind_of_file_is_refused() {
    let (what, _) = refused(&[("a.docx", b"x")], "a.docx");
    assert!(what.ends_with("expected .txt, .md or .jsonl"), "{what}");
}

#[test]
fn a_binary_file_is_refused_with_the_offset() {
    let (what, _) = refused(&[("a.txt", b"abc\0def")], "a.txt");
    assert!(what.ends_with("a NUL byte, so this is a binary file at byte 3"), "{what}");
}

#[test]
fn latin_1_is_refused_with_the_offset() {
    let (what, e) = refused(&[("a.txt", b"caf\xE9 au lait")], "a.txt");
    assert!(what.ends_with("a byte that is not UTF-8 at byte 3"), "{what}");
    assert!(e.help.unwrap().contains("iconv"));
}

#[test]
fn utf_16_is_recognised() {
    let (what, e) = refused(&[("a.txt", b"\xFF\xFEh\0i\0")], "a.txt");
    assert!(what.contains("UTF-16"), "{what}");
    assert!(e.help.unwrap().contains("iconv -f UTF-16"));
}

#[test]
fn bad_bytes_in_a_row_are_counted_from_the_start_of_the_file() {
    let rows = b"{\"text\": \"x\"}\n{\"text\": \"\xFF\"}\n";
    let (what, _) = refused(&[("a.jsonl", rows)], "a.jsonl");
    assert!(what.ends_with("not UTF-8 at byte 24"), "{what}");
}

#[test]
fn a_syntax_error_has_its_row_and_column() {
    let (what, _) = refused(&[("a.jsonl", b"{\"text\": \"x\"}\n\n{\"text\": oops}\n")], "a.jsonl");
    assert!(what.starts_with("line 3 of ") && what.contains("a.jsonl"), "{what}");
    assert!(what.contains("(column 10)") && !what.contains("at line"), "{what}");
}

#[test]
fn a_row_that_is_no_object_says_what_it_is() {
    let (what, _) = refused(&[("a.jsonl", b"[1, 2]")], "a.jsonl");
    assert!(what.ends_with("is a list, expected an object"), "{what}");
}

#[test]
fn a_missing_field_lists_the_others_and_suggests_one() {
    let rows = b"{\"text\": \"x\"}\n{\"id\": 7, \"prompt\": \"p\", \"answer\": \"a\"}";
    let (what, e) = refused(&[("data.jsonl", rows)], "data.jsonl");
    assert!(what.starts_with("row 2 of "), "{what}");
    assert!(what.ends_with("data.jsonl has no field \"text\"; it has: id, prompt, answer"), "{what}");
    assert_eq!(e.help.unwrap(), "--columns text=prompt");
}

#[test]
fn another_column_can_be_named() {
    let dir = folder(&[("a.jsonl", b"{\"prompt\": \"p\"}")]);
    assert_eq!(read_columns(&dir, &["a.jsonl"], "text=prompt").unwrap().0, ["p"]);
}

#[test]
fn a_columns_value_that_does_not_parse_is_refused() {
    for bad in ["prompt", "prompt=x", "text="] {
        let (what, _) = told(bad.parse::<Columns>().unwrap_err().into());
        assert_eq!(what, format!("--columns: expected text=FIELD, got {bad:?}"));
    }
}

#[test]
fn a_field_of_another_type_is_refused() {
    let (what, _) = refused(&[("a.jsonl", b"{\"text\": [\"x\"]}")], "a.jsonl");
    assert!(what.ends_with("field \"text\" is a list, expected a string"), "{what}");
}
