//! The house as it is drawn in docs/architecture.md, read from the paths that `src/` names: no arrow
//! upwards between rooms, no circle between files, few entries, no long file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms, and for each the rooms that it may use. Each names only rooms below it, so that
/// there is no circle between rooms.
const ROOMS: [(&str, &[&str]); 8] = [
    ("files", &[]),
    ("engine", &["files"]),
    ("speech", &["engine", "files"]),
    ("run", &["engine", "files"]),
    ("paper", &["run", "speech", "engine", "files"]),
    ("pages", &["run", "engine", "files"]),
    ("tools", &["run", "engine", "files"]),
    ("cli", &["paper", "pages", "tools", "run", "speech", "engine", "files"]),
];

/// What someone sees who opens `src/`.
const MOST_ENTRIES: usize = 9;

/// Lines of code in a file; comments, blank lines and unit tests are not counted.
const MOST_LINES: usize = 500;

#[test]
fn no_arrow_leads_upwards_between_rooms() {
    let upwards = arrows_upwards(&arrows(&source()));
    assert!(upwards.is_empty(), "{upwards:#?}");
}

#[test]
fn no_circle_joins_files() {
    let circles = circles(&arrows(&source()));
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn few_entries_meet_the_eye() {
    let entries = fs::read_dir(src()).unwrap().count();
    assert!(entries <= MOST_ENTRIES, "src/ has {entries} entries, at most {MOST_ENTRIES}");
}

#[test]
fn no_file_is_long() {
    let long: BTreeMap<String, usize> = source()
        .into_iter()
        .map(|file| (file.path, lines_of_code(&without_tests(&file.code))))
        .filter(|(_, lines)| *lines > MOST_LINES)
        .collect();
    assert!(long.is_empty(), "files above {MOST_LINES} lines of code: {long:#?}");
}

#[test]
fn made_up_houses_are_refused() {
    let arrow = |from: &str, to: &str| (from.to_string(), to.to_string());
    // A chain is no circle, and two ways to the same file are none.
    let mut arrows = BTreeSet::from([arrow("a", "b"), arrow("b", "c"), arrow("a", "c")]);
    assert!(circles(&arrows).is_empty());
    arrows.extend([arrow("c", "d"), arrow("d", "b"), arrow("d", "e")]);
    assert_eq!(circles(&arrows), [["b", "c", "d"]]);

    let file = |path: &str, text: &str| Source::new(path, text);
    let house = [
        file("engine/mlp.rs", "use crate::files::model::Model;"),
        file("files/model.rs", "use crate::engine::mlp::Mlp; pub struct Model;"),
        file("pages/mod.rs", "pub mod report;"),
        file("pages/report.rs", "fn page() { crate::paper::table() }"),
        file("paper/mod.rs", "pub fn table() {}"),
        file("cli/main.rs", "mod session; use session::Session; pub struct Global;"),
        file("cli/session.rs", "use super::Global; use limbeck::pages::report;"),
    ];
    let arrows = arrows_of(&house);
    assert_eq!(
        arrows_upwards(&arrows),
        ["files/model.rs → engine/mlp.rs", "pages/report.rs → paper/mod.rs"]
    );
    assert_eq!(
        circles(&arrows),
        [["cli/main.rs", "cli/session.rs"], ["engine/mlp.rs", "files/model.rs"]]
    );
}

#[test]
fn paths_are_read_from_code_alone() {
    let text = r##"
        //! See [`crate::comment::Item`].
        use crate::run::{
            folder::RunFolder, // crate::comment
            records::{self, Recorder as R},
        };
        /* crate::comment /* nested */ crate::comment */
        fn f<'a>(c: &'a char) { let s = ("crate::text", r#"crate::"raw""#, '"', '\''); super::g(s) }
        #[cfg(test)]
        mod tests { use crate::test::Only; fn g() { { } } }
        fn after() -> crate::files::Result<limbeck::Error> {}
    "##;
    let code = without_tests(&code_of(text));
    let found: Vec<String> = paths(&code, &BTreeSet::new()).iter().map(|p| p.join("::")).collect();
    assert_eq!(
        found,
        [
            "crate::run::folder::RunFolder",
            "crate::run::records",
            "crate::run::records::Recorder",
            "super::g",
            "crate::files::Result",
            "limbeck::Error"
        ]
    );
    // The use of four lines, the function, the attribute of the tests and the function after them.
    assert_eq!(lines_of_code(&code), 7);
}

/// A file of the source.
struct Source {
    /// From `src/` on.
    path: String,
    /// Its text without comments, and with `_` for the letters of strings.
    code: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Source {
        Source { path: path.to_string(), code: code_of(text) }
    }

    /// The module that the file is: `engine::trainer` for `engine/trainer/mod.rs`. `cli/main.rs` is
    /// the root of a crate, which is called `cli` here.
    fn module(&self) -> Vec<String> {
        let mut parts: Vec<&str> = self.path.trim_end_matches(".rs").split('/').collect();
        if matches!(parts[..], [.., "mod"] | ["cli", "main"] | ["lib"]) {
            parts.pop();
        }
        parts.into_iter().map(String::from).collect()
    }
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn source() -> Vec<Source> {
    fn collect(folder: &Path, files: &mut Vec<Source>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, files);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let name = path.strip_prefix(src()).unwrap().to_str().unwrap().replace('\\', "/");
                files.push(Source::new(&name, &fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut files = Vec::new();
    collect(&src(), &mut files);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(files.len() > 50, "found {} files", files.len());
    files
}

/// Which file uses which.
type Arrows = BTreeSet<(String, String)>;

fn arrows(files: &[Source]) -> Arrows {
    let arrows = arrows_of(files);
    assert!(arrows.len() > 100, "found {} arrows", arrows.len());
    arrows
}

/// The arrows between these files. `lib.rs`, which only names modules and re-exports, has none.
fn arrows_of(files: &[Source]) -> Arrows {
    let by_module: BTreeMap<Vec<String>, &str> =
        files.iter().map(|file| (file.module(), &file.path[..])).collect();
    let mut arrows = Arrows::new();
    for file in files.iter().filter(|file| file.path != "lib.rs") {
        let module = file.module();
        let is_child = |child: &&Vec<String>| child[..child.len() - 1] == module;
        let modules = by_module.keys().filter(|key| !key.is_empty());
        let children: BTreeSet<&str> =
            modules.filter(is_child).map(|child| &child[child.len() - 1][..]).collect();
        for path in paths(&without_tests(&file.code), &children) {
            let full = resolve(&module, &path);
            // The module is the longest part of the path that is one; the rest names an item.
            let target = (1..=full.len()).rev().find_map(|n| by_module.get(&full[..n]));
            // A folder inside a room is one part: its files use what its mod.rs declares.
            let own_front = |target: &str| {
                let folder = target.strip_suffix("/mod.rs").filter(|folder| folder.contains('/'));
                folder
                    .is_some_and(|folder| Path::new(&file.path).parent() == Some(Path::new(folder)))
            };
            if let Some(target) =
                target.filter(|target| **target != file.path && !own_front(target))
            {
                arrows.insert((file.path.clone(), target.to_string()));
            }
        }
    }
    arrows
}

/// A path in the file of `module`, from the root of `src/`.
fn resolve(module: &[String], path: &[String]) -> Vec<String> {
    let in_program = module.first().is_some_and(|room| room == "cli");
    let mut full = match &path[0][..] {
        "crate" if in_program => vec!["cli".to_string()],
        "crate" | "limbeck" => Vec::new(),
        _ => module.to_vec(),
    };
    for part in path {
        match &part[..] {
            "super" => drop(full.pop()),
            "crate" | "limbeck" | "self" => {}
            name => full.push(name.to_string()),
        }
    }
    full
}

fn room(path: &str) -> String {
    path.split('/').next().unwrap_or_default().to_string()
}

/// The arrows that lead to a room which the first one's room may not use.
fn arrows_upwards(arrows: &Arrows) -> Vec<String> {
    let allowed = |from: &str, to: &str| {
        let (_, below) = ROOMS.iter().find(|(name, _)| *name == from).expect("a room of the list");
        from == to || below.contains(&to)
    };
    let upwards = arrows.iter().filter(|(from, to)| !allowed(&room(from), &room(to)));
    upwards.map(|(from, to)| format!("{from} → {to}")).collect()
}

/// The circles: files that lead to each other, by arrows straight or over others.
fn circles(arrows: &Arrows) -> Vec<Vec<String>> {
    let mut reached: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (from, to) in arrows {
        reached.entry(from).or_default().insert(to);
    }
    // Warshall's closure: with each file as a further stop on the way.
    for stop in reached.keys().copied().collect::<Vec<_>>() {
        let beyond = reached[stop].clone();
        for reached in reached.values_mut().filter(|reached| reached.contains(stop)) {
            reached.extend(&beyond);
        }
    }
    let mutual = |from: &str| -> Vec<String> {
        let back = |to: &&&str| reached.get(**to).is_some_and(|reached| reached.contains(from));
        reached[from].iter().filter(back).map(|to| to.to_string()).collect()
    };
    let circles: BTreeSet<Vec<String>> = reached.keys().map(|from| mutual(from)).collect();
    circles.into_iter().filter(|circle| !circle.is_empty()).collect()
}

/// Lines with something on them.
fn lines_of_code(code: &str) -> usize {
    code.lines().filter(|line| !line.trim().is_empty()).count()
}

/// `text` without comments, and with `_` for the letters of strings and characters. Lines stay
/// lines.
fn code_of(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let starts =
        |at: usize, with: &str| with.chars().eq(letters[at..].iter().copied().take(with.len()));
    let mut code = String::new();
    let mut at = 0;
    while at < letters.len() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let begins_word = at == 0 || !is_word(letters[at - 1]);
        let hashes = letters[at + 1..].iter().take_while(|c| **c == '#').count();
        // Where a literal's letters begin, and what ends them.
        let mut literal = None;
        if starts(at, "//") {
            at += letters[at..].iter().take_while(|c| **c != '\n').count();
            continue;
        } else if starts(at, "/*") {
            let mut depth = 0;
            loop {
                match (starts(at, "/*"), starts(at, "*/")) {
                    (true, _) => (depth, at) = (depth + 1, at + 2),
                    (_, true) => (depth, at) = (depth - 1, at + 2),
                    _ => {
                        code.extend((letters[at] == '\n').then_some('\n'));
                        at += 1;
                    }
                }
                if depth == 0 {
                    break;
                }
            }
            continue;
        } else if letters[at] == '"' {
            literal = Some((at + 1, "\"".to_string()));
        } else if letters[at] == 'r' && begins_word && letters.get(at + 1 + hashes) == Some(&'"') {
            literal = Some((at + 2 + hashes, format!("\"{}", "#".repeat(hashes))));
        } else if letters[at] == '\''
            && (starts(at + 1, "\\") || letters.get(at + 2) == Some(&'\''))
        {
            // Not a lifetime.
            literal = Some((at + 1, "'".to_string()));
        }
        let Some((first, end)) = literal else {
            code.push(letters[at]);
            at += 1;
            continue;
        };
        let raw = letters[at] == 'r';
        code.extend(&letters[at..first]);
        at = first;
        while !starts(at, &end) {
            let width = if letters[at] == '\\' && !raw { 2 } else { 1 };
            let hidden =
                letters[at..at + width].iter().map(|c| if *c == '\n' { '\n' } else { '_' });
            code.extend(hidden);
            at += width;
        }
        code += &end;
        at += end.len();
    }
    code
}

/// `code` without the bodies of its unit tests.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let Some(at) = code.find(MARK) else { return code.to_string() };
    let (before, rest) = code.split_at(at + MARK.len());
    if !rest.trim_start().starts_with("mod ") {
        return before.to_string() + &without_tests(rest);
    }
    let mut depth = 0;
    let end = rest.char_indices().find_map(|(i, c)| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        let ended = matches!(c, ';' | '}') && depth == 0;
        ended.then_some(i + 1)
    });
    before.to_string() + &without_tests(&rest[end.unwrap_or(rest.len())..])
}

/// The paths in `code` that begin at a root (`crate`, `limbeck`, `super`, `self`) or at one of the
/// `children`, with the braces of a `use` expanded.
fn paths(code: &str, children: &BTreeSet<&str>) -> Vec<Vec<String>> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let root = ["crate", "limbeck", "super", "self"].contains(&&token[..]);
        let continues = tokens.get(at + 1).is_some_and(|next| next == "::");
        let begins = at == 0 || tokens[at - 1] != "::";
        let in_braces = at > 0 && ["{", ","].contains(&&tokens[at - 1][..]);
        if begins && continues && (root || children.contains(&token[..]) && !in_braces) {
            expand(&tokens, at, &[], &mut found);
        }
    }
    found
}

/// Reads the tree of a path at `at`, behind `prefix`; returns where it ends.
fn expand(
    tokens: &[String],
    mut at: usize,
    prefix: &[String],
    found: &mut Vec<Vec<String>>,
) -> usize {
    let mut path = prefix.to_vec();
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("{") => {
                while tokens[at] != "}" {
                    at = expand(tokens, at + 1, &path, found);
                    if tokens[at] == "as" {
                        at += 2;
                    }
                }
                return at + 1;
            }
            Some("}") => return at,
            Some(name) => {
                if name != "self" || prefix.is_empty() {
                    path.push(name.to_string());
                }
            }
            None => return at,
        }
        if tokens.get(at + 1).is_none_or(|next| next != "::") {
            found.push(path);
            return at + 1;
        }
        // Behind `::` may come a list, or generic arguments, which end the path.
        if tokens.get(at + 2).is_some_and(|next| next == "<") {
            found.push(path);
            return at + 2;
        }
        at += 2;
    }
}

/// Words, `::` and single signs.
fn tokens(code: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut letters = code.chars().peekable();
    while let Some(c) = letters.next() {
        let mut token = c.to_string();
        if c.is_alphanumeric() || c == '_' {
            while let Some(c) = letters.next_if(|c| c.is_alphanumeric() || *c == '_') {
                token.push(c);
            }
        } else if c == ':' && letters.next_if_eq(&':').is_some() {
            token.push(':');
        } else if c.is_whitespace() {
            continue;
        }
        tokens.push(token);
    }
    tokens
}
