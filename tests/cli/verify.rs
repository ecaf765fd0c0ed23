//! `verify`: histories that are in order, and others.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::stage::stderr;

const IN_ORDER: &str = r#"
{"at":0,"attempt":1,"key":"k","act":"asked","mode":"exclusive"}
{"at":5,"attempt":1,"key":"k","act":"granted","token":7,"floor":7}
{"at":6,"attempt":2,"key":"k","act":"asked","mode":"shared"}
{"at":7,"attempt":2,"key":"k","act":"queued"}
{"at":9,"attempt":1,"key":"k","act":"releasing"}
{"at":12,"attempt":2,"key":"k","act":"granted","token":8,"floor":8}
{"at":20,"attempt":2,"key":"k","act":"releasing"}
"#;

fn verify(history: &Path, options: &[&str]) -> Output {
    let command = &mut Command::new(env!("CARGO_BIN_EXE_fencelock"));
    command.arg("verify").args(options).arg(history).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A history in a file.
fn written(text: &str) -> (TempDir, std::path::PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("history.jsonl");
    fs::write(&path, text).unwrap();
    (folder, path)
}

#[test]
fn a_history_in_order_is_said_to_be_so() {
    let (_folder, path) = written(IN_ORDER);
    let output = verify(&path, &["--fair", "--complete", "--drained-within", "1s"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), "in order: 7 events, 2 attempts, 2 grants, the longest wait 6ns\n");
    let json: serde_json::Value = serde_json::from_slice(&verify(&path, &["--json"]).stdout).unwrap();
    assert_eq!((&json["explained"], &json["grants"]), (&true.into(), &2.into()));
}

#[test]
fn what_no_lock_may_do_is_told_and_drawn() {
    let (folder, path) = written(&IN_ORDER.replace("\"at\":9,", "\"at\":12,"));
    let swapped: String = {
        let text = fs::read_to_string(&path).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.swap(5, 6);
        lines.join("\n")
    };
    fs::write(&path, swapped).unwrap();
    let picture = folder.path().join("wrong.svg");
    let output = verify(&path, &["--svg", picture.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(
        text.starts_with("attempts 1 and 2 exclude each other and both hold at 12 ns\n  that breaks S3"),
        "{text}"
    );
    assert!(text.contains("0.000005 ms  is granted: token 7, floor 7\n"), "{text}");
    assert!(fs::read_to_string(&picture).unwrap().starts_with("<svg "));
    let json: serde_json::Value = serde_json::from_slice(&verify(&path, &["--json"]).stdout).unwrap();
    assert_eq!(json["explained"], false);
    assert_eq!(json["violation"]["rule"], "S3");
    assert_eq!(json["violation"]["attempts"], serde_json::json!([1, 2]));
}

#[test]
fn what_is_no_history_is_a_failure_of_its_own() {
    let (folder, path) = written("\n{\"at\":0,\"attempt\":1}\n");
    let output = verify(&path, &[]);
    assert_eq!(output.status.code(), Some(125));
    let said = stderr(&output);
    assert!(said.contains("line 2, is no event: missing field `key`"), "{said}");
    let output = verify(&folder.path().join("nowhere"), &[]);
    assert_eq!(output.status.code(), Some(125));
    assert!(stderr(&output).contains("cannot read"), "{}", stderr(&output));
}
