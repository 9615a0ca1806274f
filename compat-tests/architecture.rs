//! What the compiler cannot check in one crate: imports point down the layers, foreign crates stay home, files
//! stay small and begin with a `//!`, and nothing outside tests panics by `unwrap`, `panic!` or `todo!`.
//!
//! The checker reads tokens, not types: it sees every path that is written out, in `use` trees and elsewhere.
//! Code under `#[cfg(test)]`, files declared there included, is left out, except for the `//!` of files.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Top-level modules in layer order and the ones that each may name. A new edge is a new word here and a new
/// line in the picture of `src/lib.rs`, in the same commit.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    // 6, entry
    ("main", &["cli"]),
    ("cli", &["app", "config", "telemetry", "model"]),
    (
        "app",
        &[
            "config",
            "http",
            "s3",
            "native",
            "admin",
            "rest",
            "tasks",
            "import",
            "namespace",
            "content",
            "auth",
            "keys",
            "manifest",
            "cluster",
            "meta",
            "blob",
            "telemetry",
            "model",
        ],
    ),
    (
        // Only the `Config` of each.
        "config",
        &[
            "http",
            "s3",
            "native",
            "admin",
            "tasks",
            "namespace",
            "content",
            "auth",
            "keys",
            "manifest",
            "cluster",
            "meta",
            "blob",
            "telemetry",
            "model",
        ],
    ),
    // 4, facades
    (
        "s3",
        &["http", "namespace", "auth", "cluster", "telemetry", "model"],
    ),
    (
        "native",
        &[
            "http",
            "content",
            "namespace",
            "auth",
            "cluster",
            "rest",
            "telemetry",
            "model",
        ],
    ),
    (
        "admin",
        &[
            "http",
            "namespace",
            "content",
            "auth",
            "keys",
            "tasks",
            "cluster",
            "rest",
            "telemetry",
            "model",
        ],
    ),
    ("rest", &["telemetry", "model"]),
    // The listener knows no facade: they implement its `Facade`, and `app` puts one behind each address.
    ("http", &["telemetry", "model"]),
    // 3, runners
    (
        "tasks",
        &[
            "namespace",
            "content",
            "auth",
            "keys",
            "manifest",
            "meta",
            "cluster",
            "telemetry",
            "model",
        ],
    ),
    ("import", &["namespace", "meta", "model"]),
    // 2, domain
    (
        "namespace",
        &["content", "keys", "meta", "telemetry", "model"],
    ),
    ("content", &["keys", "meta", "blob", "telemetry", "model"]),
    ("manifest", &["keys", "meta", "blob", "telemetry", "model"]),
    ("auth", &["keys", "meta", "telemetry", "model"]),
    ("keys", &["meta", "telemetry", "model"]),
    ("cluster", &["meta", "telemetry", "model"]),
    // 1, stores
    ("meta", &["telemetry", "model"]),
    ("blob", &["telemetry", "model"]),
    // 0, ground
    ("telemetry", &[]),
    ("model", &[]),
];

/// Foreign crates and where they may be named: files, or folders with a slash at the end.
const HOMES: &[(&str, &[&str])] = &[
    ("s3s", &["s3/"]),
    ("multer", &["s3/", "native/"]),
    ("utoipa", &["native/"]),
    ("infer", &["native/"]),
    (
        "hyper",
        &[
            "http/",
            "s3/",
            "native/",
            "admin/",
            "rest.rs",
            "app.rs",
            "cluster/forward.rs",
        ],
    ),
    (
        "hyper_util",
        &[
            "http/",
            "s3/",
            "native/",
            "admin/",
            "rest.rs",
            "app.rs",
            "cluster/forward.rs",
        ],
    ),
    ("axum", &["http/", "native/", "admin/", "rest.rs", "app.rs"]),
    ("rusqlite", &["meta/"]),
    ("sqlx", &["meta/"]),
    ("opendal", &["blob/"]),
    ("fred", &["cluster/"]),
    // Webhooks, blobs of other nodes, and what commands ask a server; opendal brings its own use of it.
    (
        "reqwest",
        &["tasks/", "cluster/peers.rs", "admin/client.rs"],
    ),
    ("clap", &["cli.rs", "cli/"]),
    ("indicatif", &["cli.rs", "cli/watch.rs"]),
    ("figment", &["config.rs", "config/"]),
    ("prometheus_client", &["telemetry.rs", "telemetry/"]),
    ("tracing_subscriber", &["telemetry.rs"]),
    (
        "serde_json",
        &[
            "native/",
            "admin/",
            "rest.rs",
            "auth/policy/",
            // A form's policy is a JSON document.
            "s3/post/",
            "meta/",
            // Messages between nodes of different versions.
            "cluster/hints.rs",
            "cli.rs",
            "cli/",
        ],
    ),
];

/// Foreign crates that `model/` may not name; it may use `bytes` and `futures_core` for the stream type.
const NOT_IN_MODEL: &[&str] = &[
    "tokio",
    "tokio_util",
    "futures",
    "tracing",
    "http",
    "serde_json",
];

/// Files that may break one rule, each with the reason. An entry that is not needed any more fails the test.
const EXCEPTIONS: &[(&str, Rule, &str)] = &[];

/// Lines without tests above which a file is reported, and above which the test fails.
const SOFT_LINES: usize = 500;
const HARD_LINES: usize = 800;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rule {
    Import,
    ForeignCrate,
    Size,
    ModuleDoc,
    Panic,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Breach {
    file: String,
    line: usize,
    rule: Rule,
    what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            rule,
            what,
        } = self;
        write!(f, "src/{file}:{line}: {rule:?}: {what}")
    }
}

#[test]
fn sources_obey_the_layers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 1, "no sources under {}", root.display());
    let files: Vec<(String, String)> = files
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&root).expect("found below");
            let name = name.to_string_lossy().replace('\\', "/");
            (name, fs::read_to_string(&path).expect("a readable source"))
        })
        .collect();
    let tests: Vec<String> = files
        .iter()
        .flat_map(|(name, text)| test_modules(name, text))
        .collect();
    let mut breaches = Vec::new();
    for (name, text) in &files {
        let module = name.trim_end_matches(".rs").trim_end_matches("/mod");
        let kind = if tests
            .iter()
            .any(|test| module == test || module.starts_with(&format!("{test}/")))
        {
            Kind::Test
        } else {
            Kind::Product
        };
        let file = Source::new(name, text, kind);
        if file.lines > SOFT_LINES {
            println!(
                "src/{name}: {} lines without tests, aim under {SOFT_LINES}",
                file.lines
            );
        }
        file.check(&mut breaches);
    }
    let is_excepted = |breach: &Breach, (file, rule, _): &(&str, Rule, &str)| {
        breach.file == *file && breach.rule == *rule
    };
    for exception in EXCEPTIONS {
        assert!(
            breaches.iter().any(|breach| is_excepted(breach, exception)),
            "not needed any more: {exception:?}"
        );
    }
    breaches.retain(|breach| !EXCEPTIONS.iter().any(|entry| is_excepted(breach, entry)));
    let lines: Vec<String> = breaches.iter().map(Breach::to_string).collect();
    assert!(lines.is_empty(), "\n{}", lines.join("\n"));
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .expect("a readable folder")
        .map(|entry| entry.expect("a readable entry").path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Files, without `.rs`, of the modules that `text` declares under `#[cfg(test)]`.
fn test_modules(name: &str, text: &str) -> Vec<String> {
    let folder = name
        .trim_end_matches("mod.rs")
        .trim_end_matches("lib.rs")
        .trim_end_matches(".rs")
        .trim_end_matches('/');
    let tokens = tokens(text);
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        if !is_cfg_test(&tokens[at..]) {
            continue;
        }
        let item: Vec<&str> = tokens[at + CFG_TEST.len()..]
            .iter()
            .map(|token| token.text)
            .take_while(|text| !matches!(*text, ";" | "{"))
            .collect();
        let ends = tokens.get(at + CFG_TEST.len() + item.len());
        if let [.., "mod", module] = item[..]
            && ends.is_some_and(|token| token.text == ";")
        {
            found.push(
                format!("{folder}/{module}")
                    .trim_start_matches('/')
                    .to_owned(),
            );
        }
    }
    found
}

const CFG_TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];

fn is_cfg_test(tokens: &[Token<'_>]) -> bool {
    tokens
        .iter()
        .map(|token| token.text)
        .take(CFG_TEST.len())
        .eq(CFG_TEST)
}

/// Whether a file is part of the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Product,
    Test,
}

/// One source file, cut into the tokens outside its tests.
struct Source<'a> {
    /// Below `src/`, with slashes.
    name: &'a str,
    /// `["s3", "objects"]`; empty for `lib.rs`.
    module: Vec<&'a str>,
    has_doc: bool,
    /// Without tests.
    lines: usize,
    tokens: Vec<Token<'a>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token<'a> {
    text: &'a str,
    line: usize,
}

/// A path as written, such as `crate::meta::Tx`.
#[derive(Debug, PartialEq, Eq)]
struct Named<'a> {
    segments: Vec<&'a str>,
    line: usize,
}

impl<'a> Source<'a> {
    fn new(name: &'a str, text: &'a str, kind: Kind) -> Self {
        let mut module: Vec<&str> = name.trim_end_matches(".rs").split('/').collect();
        if module.last() == Some(&"mod") || module == ["lib"] {
            module.pop();
        }
        let (tokens, test_lines) = match kind {
            Kind::Test => (Vec::new(), text.lines().count()),
            Kind::Product => without_tests(&tokens(text)),
        };
        Self {
            name,
            module,
            has_doc: text
                .lines()
                .find(|line| !line.trim().is_empty())
                .is_some_and(|line| line.starts_with("//! ")),
            lines: text.lines().count() - test_lines,
            tokens,
        }
    }

    fn check(&self, breaches: &mut Vec<Breach>) {
        let mut breach = |line, rule, what: String| {
            breaches.push(Breach {
                file: self.name.to_owned(),
                line,
                rule,
                what,
            });
        };
        if !self.has_doc {
            breach(1, Rule::ModuleDoc, "does not begin with `//! `".to_owned());
        }
        if self.lines > HARD_LINES {
            let what = format!("{} lines without tests, at most {HARD_LINES}", self.lines);
            breach(1, Rule::Size, what);
        }
        for (line, what) in self.panics() {
            breach(line, Rule::Panic, what.to_owned());
        }
        if let Some(own) = self.module.first()
            && !MAY_IMPORT.iter().any(|(module, _)| module == own)
        {
            let what = format!("module {own} has no row in the table of layers");
            breach(1, Rule::Import, what);
        }
        let mut seen = BTreeSet::new();
        for path in paths(&self.tokens) {
            let (rule, what) = if let Some(what) = self.wrong_import(&path) {
                (Rule::Import, what)
            } else if let Some(what) = self.stray_crate(&path) {
                (Rule::ForeignCrate, what)
            } else {
                continue;
            };
            if seen.insert((path.line, what.clone())) {
                breach(path.line, rule, what);
            }
        }
    }

    /// What is wrong with a path that leads to a top-level module of ours.
    fn wrong_import(&self, path: &Named<'_>) -> Option<String> {
        let own = self.module.first()?;
        let supers = path
            .segments
            .iter()
            .take_while(|segment| **segment == "super")
            .count();
        let target = match path.segments[0] {
            "crate" | "osproxy" => path.segments.get(1)?,
            // As many steps as the file is deep lead to the crate.
            "super" if supers >= self.module.len() => path.segments.get(supers)?,
            _ => return None,
        };
        let (_, allowed) = MAY_IMPORT.iter().find(|(module, _)| module == own)?;
        let is_module = MAY_IMPORT.iter().any(|(module, _)| module == target);
        (is_module && target != own && !allowed.contains(target))
            .then(|| format!("{own} may not name {target}"))
    }

    /// What is wrong with a path that begins with a foreign crate.
    fn stray_crate(&self, path: &Named<'_>) -> Option<String> {
        let name = path.segments[0];
        if self.module.first() == Some(&"model") && NOT_IN_MODEL.contains(&name) {
            return Some(format!("model may not name {name}"));
        }
        let (_, homes) = HOMES.iter().find(|(foreign, _)| *foreign == name)?;
        let is_home = homes
            .iter()
            .any(|home| self.name == *home || home.ends_with('/') && self.name.starts_with(home));
        (!is_home).then(|| format!("{name} belongs to {}", homes.join(", ")))
    }

    fn panics(&self) -> Vec<(usize, &'static str)> {
        let mut found = Vec::new();
        for window in self.tokens.windows(4) {
            let texts = [
                window[0].text,
                window[1].text,
                window[2].text,
                window[3].text,
            ];
            match texts {
                [".", "unwrap", "(", ")"] => found.push((window[0].line, ".unwrap()")),
                ["panic", "!", ..] => found.push((window[0].line, "panic!")),
                ["todo", "!", ..] => found.push((window[0].line, "todo!")),
                ["unimplemented", "!", ..] => found.push((window[0].line, "unimplemented!")),
                _ => {}
            }
        }
        found
    }
}

/// Every path with more than one segment, and every leaf of every `use`.
fn paths<'a>(tokens: &[Token<'a>]) -> Vec<Named<'a>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at].text == "use" && tokens.get(at + 1).is_some_and(|t| t.text != "<") {
            at += 1;
            use_tree(tokens, &mut at, &[], &mut found);
        } else if is_word(tokens[at].text)
            && tokens.get(at + 1).is_some_and(|t| t.text == "::")
            && !continues_a_path(tokens, at)
        {
            let line = tokens[at].line;
            let mut segments = vec![tokens[at].text];
            while tokens.get(at + 1).is_some_and(|t| t.text == "::")
                && tokens.get(at + 2).is_some_and(|t| is_word(t.text))
            {
                segments.push(tokens[at + 2].text);
                at += 2;
            }
            found.push(Named { segments, line });
            at += 1;
        } else {
            at += 1;
        }
    }
    found
}

/// Whether the word at `at` follows `::` after a word, a generic or a method's dot.
fn continues_a_path(tokens: &[Token<'_>], at: usize) -> bool {
    let before = |steps: usize| at.checked_sub(steps).map_or("", |place| tokens[place].text);
    before(1) == "." || before(1) == "::" && (is_word(before(2)) || before(2) == ">")
}

/// Reads one branch of a `use` and leaves `at` behind it.
fn use_tree<'a>(
    tokens: &[Token<'a>],
    at: &mut usize,
    prefix: &[&'a str],
    found: &mut Vec<Named<'a>>,
) {
    let mut segments = prefix.to_vec();
    let line = tokens.get(*at).map_or(0, |token| token.line);
    while let Some(token) = tokens.get(*at) {
        match token.text {
            "{" => {
                *at += 1;
                while tokens.get(*at).is_some_and(|token| token.text != "}") {
                    use_tree(tokens, at, &segments, found);
                    if tokens.get(*at).is_some_and(|token| token.text == ",") {
                        *at += 1;
                    }
                }
                *at += 1;
                return;
            }
            "as" => *at += 2,
            "," | "}" | ";" => break,
            text => {
                if is_word(text) || text == "*" {
                    segments.push(text);
                }
                *at += 1;
            }
        }
    }
    if !segments.is_empty() {
        found.push(Named { segments, line });
    }
}

/// Removes what `#[cfg(test)]` covers; also counts the lines removed.
fn without_tests<'a>(tokens: &[Token<'a>]) -> (Vec<Token<'a>>, usize) {
    let mut kept = Vec::new();
    let mut test_lines = 0;
    let mut at = 0;
    while at < tokens.len() {
        let is_test = is_cfg_test(&tokens[at..]);
        if !is_test {
            kept.push(tokens[at]);
            at += 1;
            continue;
        }
        // The item ends at its closing brace, or at the semicolon of one without braces.
        let first = tokens[at].line;
        at += CFG_TEST.len();
        let mut depth = 0;
        while at < tokens.len() {
            match tokens[at].text {
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => depth -= 1,
                _ => {}
            }
            let ends = match tokens[at].text {
                "}" => depth == 0,
                ";" => depth == 0,
                _ => false,
            };
            at += 1;
            if ends {
                break;
            }
        }
        test_lines += tokens[at - 1].line - first + 1;
    }
    (kept, test_lines)
}

/// Cuts a source into words and marks. Comments are dropped, and literals become `""`.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut line = 1;
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let rest = &text[at..];
        let first = rest.chars().next().unwrap_or(' ');
        let mut token = "";
        if first.is_whitespace() {
            at += first.len_utf8();
        } else if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if rest.starts_with("/*") {
            at += block_comment(rest);
        } else if let Some(length) = string(rest) {
            at += length;
            token = "\"\"";
        } else if first == '\'' {
            match quote(rest) {
                Some(length) => {
                    at += length;
                    token = "\"\"";
                }
                // A lifetime.
                None => at += 1,
            }
        } else if first.is_alphanumeric() || first == '_' {
            at += rest
                .find(|c: char| !(c.is_alphanumeric() || c == '_'))
                .unwrap_or(rest.len());
            token = &text[start..at];
            if token == "r" && text[at..].starts_with('#') {
                // A raw word such as `r#type`.
                at += 1;
                token = "";
            }
        } else if rest.starts_with("::") {
            at += 2;
            token = "::";
        } else {
            at += first.len_utf8();
            token = &text[start..at];
        }
        if !token.is_empty() {
            found.push(Token { text: token, line });
        }
        line += text[start..at].matches('\n').count();
    }
    found
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// The length of the string literal that `rest` begins with, prefix included.
fn string(rest: &str) -> Option<usize> {
    let body = rest
        .strip_prefix("br")
        .or_else(|| rest.strip_prefix("cr"))
        .or_else(|| rest.strip_prefix('r'));
    if let Some(body) = body {
        let hashes = body.len() - body.trim_start_matches('#').len();
        if let Some(body) = body[hashes..].strip_prefix('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let length = body.find(&close)? + close.len();
            return Some(rest.len() - body.len() + length);
        }
    }
    let body = rest
        .strip_prefix('b')
        .or_else(|| rest.strip_prefix('c'))
        .unwrap_or(rest)
        .strip_prefix('"')?;
    let mut is_escaped = false;
    let end = body.find(|c| {
        let closes = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        closes
    })?;
    Some(rest.len() - body.len() + end + 1)
}

/// The length of the character literal that `rest` begins with; `None` for a lifetime.
fn quote(rest: &str) -> Option<usize> {
    let body = &rest[1..];
    let first = body.chars().next()?;
    if first == '\\' {
        let skipped = 1 + body[1..].chars().next()?.len_utf8();
        return Some(1 + skipped + body[skipped..].find('\'')? + 1);
    }
    let length = first.len_utf8();
    body[length..].starts_with('\'').then_some(1 + length + 1)
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

// The checker itself: it must fail where it should, and only there.

fn breaches(name: &str, text: &str) -> Vec<(Rule, usize, String)> {
    let mut breaches = Vec::new();
    Source::new(name, text, Kind::Product).check(&mut breaches);
    breaches
        .into_iter()
        .map(|breach| (breach.rule, breach.line, breach.what))
        .collect()
}

/// The only breach in a file that begins with a `//!` line, which is line 1.
fn only(name: &str, text: &str) -> (Rule, usize, String) {
    let mut found = breaches(name, &format!("//! A test.\n{text}"));
    assert_eq!(found.len(), 1, "{name}: {text}: {found:?}");
    found.remove(0)
}

fn none(name: &str, text: &str) {
    let found = breaches(name, &format!("//! A test.\n{text}"));
    assert!(found.is_empty(), "{name}: {text}: {found:?}");
}

#[test]
fn checker_finds_imports_that_point_up_or_aside() {
    for text in [
        "use crate::s3::Facade;",
        "use crate::{model::Uid, s3};",
        "use crate::{\n    model::Uid,\n    s3::{Facade, Other},\n};",
        "use super::super::s3;",
        "use {crate::s3::Facade};",
        "pub use crate::s3 as other;",
        "fn f() -> crate::s3::Facade { todo }",
        "fn f(x: &[crate::s3::Facade]) {}",
        "fn f() { let x = Vec::<crate::s3::X>::new(); }",
        "const TEXT: &str = \"// not a comment\"; use crate::s3;",
        "fn f<'a>(c: char) -> bool { c == '\"' } use crate::s3; // \"",
        "const RAW: &str = r#\"a \" b\"#; use crate::s3;",
    ] {
        let (rule, _, what) = only("meta/objects.rs", text);
        assert_eq!(rule, Rule::Import, "{text}");
        assert_eq!(what, "meta may not name s3");
    }
    let (_, line, what) = only("blob/mod.rs", "\n\nuse crate::meta::Tx;");
    assert_eq!((line, what.as_str()), (4, "blob may not name meta"));
    let (_, _, what) = only("telemetry.rs", "use crate::model::Uid;");
    assert_eq!(what, "telemetry may not name model");
    let (_, _, what) = only("telemetry.rs", "use super::model::Uid;");
    assert_eq!(what, "telemetry may not name model");
    let (_, _, what) = only("main.rs", "fn main() { osproxy::app::run(); }");
    assert_eq!(what, "main may not name app");
    let (_, _, what) = only("helpers/mod.rs", "");
    assert_eq!(what, "module helpers has no row in the table of layers");
}

#[test]
fn checker_lets_imports_point_down() {
    for (name, text) in [
        (
            "meta/objects.rs",
            "use crate::model::Uid; use super::Tx; use crate::meta::Tx;",
        ),
        (
            "meta/objects.rs",
            "// use crate::s3;\n/* crate::s3::X /* nested */ crate::s3 */",
        ),
        (
            "meta/objects.rs",
            "/// See [`crate::s3::Facade`].\nstruct X;",
        ),
        ("meta/objects.rs", "const X: &str = \"crate::s3::Facade\";"),
        (
            "meta/objects.rs",
            "pub(crate) fn f() {} pub(in crate::meta) fn g() {}",
        ),
        (
            "meta/objects.rs",
            "#[cfg(test)]\nmod tests { use crate::s3::Facade; fn f() { x.unwrap(); } }",
        ),
        ("main.rs", "fn main() { osproxy::cli::run(); }"),
        ("lib.rs", "pub mod s3; pub mod meta;"),
        (
            "namespace/mod.rs",
            "use crate::{content::ContentStore, meta};",
        ),
        ("cluster/mod.rs", "use crate::meta::Tx;"),
    ] {
        none(name, text);
    }
}

#[test]
fn checker_knows_the_files_of_test_modules() {
    let text = "#[cfg(test)]\nmod tests;\n#[cfg(test)]\npub(crate) mod suite;\nmod real;\n#[cfg(test)]\nmod inline {}";
    assert_eq!(
        test_modules("http/mod.rs", text),
        ["http/tests", "http/suite"]
    );
    assert_eq!(
        test_modules("s3/model.rs", text),
        ["s3/model/tests", "s3/model/suite"]
    );
    assert_eq!(test_modules("lib.rs", text), ["tests", "suite"]);
    let mut breaches = Vec::new();
    Source::new(
        "s3/suite.rs",
        "//! A test.\nfn f() { panic!() }",
        Kind::Test,
    )
    .check(&mut breaches);
    assert_eq!(breaches, []);
}

#[test]
fn checker_finds_code_behind_a_test_item() {
    let text = "#[cfg(test)]\nuse crate::app::x;\n#[cfg(test)]\nmod tests { fn f() {} }\nuse crate::s3::X;";
    let (_, line, what) = only("meta/mod.rs", text);
    assert_eq!((line, what.as_str()), (6, "meta may not name s3"));
}

#[test]
fn checker_finds_foreign_crates_away_from_home() {
    for text in [
        "use opendal::Operator;",
        "use {opendal::Operator, bytes::Bytes};",
        "use opendal as od;",
        "fn f() -> opendal::Operator {}",
        "use ::opendal::Operator;",
    ] {
        let (rule, _, what) = only("content/reader.rs", text);
        assert_eq!(rule, Rule::ForeignCrate, "{text}");
        assert_eq!(what, "opendal belongs to blob/");
    }
    let (_, _, what) = only("model/digest.rs", "use tokio::io;");
    assert_eq!(what, "model may not name tokio");
    let (_, _, what) = only("s3/mod.rs", "use rusqlite::Connection;");
    assert_eq!(what, "rusqlite belongs to meta/");
    none("blob/backends.rs", "use opendal::Operator;");
    none("cli.rs", "use clap::Parser;");
    none(
        "content/mod.rs",
        "use crate::blob::opendal::X; use super::opendal::Y;",
    );
    none(
        "content/mod.rs",
        "fn f() { self.opendal::<X>(); a::opendal::b(); }",
    );
    let (_, _, what) = only("rest.rs/x.rs", "").clone();
    assert!(what.contains("no row"), "a home is a whole name: {what}");
}

#[test]
fn checker_finds_panics_outside_tests() {
    for (text, what) in [
        ("fn f() { x.unwrap(); }", ".unwrap()"),
        ("fn f() { x\n.unwrap (); }", ".unwrap()"),
        ("fn f() { panic!(\"no\"); }", "panic!"),
        ("fn f() { todo!() }", "todo!"),
        ("fn f() { unimplemented!() }", "unimplemented!"),
    ] {
        let found = only("auth/keys.rs", text);
        assert_eq!((found.0, found.2.as_str()), (Rule::Panic, what));
    }
    none(
        "auth/keys.rs",
        "// x.unwrap()\nfn f() { x.unwrap_or(1); y.expect(\"never\"); catch_unwind(|| ()); }",
    );
}

#[test]
fn checker_finds_missing_module_docs_and_long_files() {
    let found = breaches("auth/keys.rs", "use std::fmt;\n//! late");
    assert_eq!(found[0].0, Rule::ModuleDoc);
    let long = format!("//! A test.\n{}", "fn f() {}\n".repeat(HARD_LINES));
    let found = breaches("auth/keys.rs", &long);
    assert_eq!(found[0].0, Rule::Size);
    assert_eq!(found[0].2, "801 lines without tests, at most 800");
    let tested = format!(
        "//! A test.\n{}#[cfg(test)]\nmod tests {{\n{}}}\n",
        "fn f() {}\n".repeat(700),
        "fn t() {}\n".repeat(700)
    );
    assert_eq!(breaches("auth/keys.rs", &tested), []);
}

#[test]
fn tables_agree_with_each_other() {
    let place = |name: &str| MAY_IMPORT.iter().position(|(module, _)| *module == name);
    for (module, allowed) in MAY_IMPORT {
        for target in *allowed {
            let below = place(target).unwrap_or_else(|| panic!("{target} has no row"));
            // `cluster` stands beside the other modules of its layer; only the order of rows is checked.
            assert!(
                Some(below) > place(module),
                "{module} imports up to {target}"
            );
        }
    }
}
