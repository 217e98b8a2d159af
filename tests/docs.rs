//! The documentation tells the truth: its links and paths exist, its configurations load, and the
//! program knows the commands that it shows.

#![cfg(feature = "cli")]

use limbeck::engine::config::Config;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folders of the repository: what begins with one of them in `code` is a path.
const FOLDERS: [&str; 12] = [
    ".ci", "benches", "configs", "datasets", "docs", "examples", "fuzz", "kernels", "python",
    "results", "src", "tests",
];

/// One Markdown file.
struct Page {
    path: PathBuf,
    /// Everything outside of fenced blocks.
    prose: String,
    /// Language and text of each fenced block.
    blocks: Vec<(String, String)>,
}

impl Page {
    fn parse(path: &Path, text: &str) -> Page {
        let mut page = Page { path: path.into(), prose: String::new(), blocks: Vec::new() };
        let mut inside = false;
        for line in text.lines() {
            match line.trim_start().strip_prefix("```") {
                Some(language) => {
                    inside = !inside;
                    if inside {
                        page.blocks.push((language.into(), String::new()));
                    }
                }
                None if inside => {
                    let (_, block) = page.blocks.last_mut().expect("a block is open");
                    *block += line;
                    *block += "\n";
                }
                None => page.prose += &format!("{line}\n"),
            }
        }
        assert!(!inside, "{}: a block is not closed", path.display());
        page
    }

    /// What stands between backticks.
    fn code(&self) -> impl Iterator<Item = &str> {
        self.prose.split('`').skip(1).step_by(2)
    }

    /// Targets of `[text](target)`.
    fn links(&self) -> Vec<&str> {
        let text = self.prose.split("](").skip(1);
        text.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target).collect()
    }

    /// The anchors of the headings, as GitHub names them.
    fn anchors(&self) -> BTreeSet<String> {
        let headings = self.prose.lines().filter(|line| line.starts_with('#'));
        headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
    }

    /// Links and paths that lead nowhere.
    fn broken(&self) -> Vec<String> {
        let folder = self.path.parent().unwrap();
        let mut broken = Vec::new();
        for link in self.links() {
            if link.starts_with("https://") || link.starts_with("http://") {
                continue;
            }
            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let path = folder.join(file);
            let found = if file.is_empty() {
                self.anchors().contains(fragment)
            } else {
                path.exists() && (fragment.is_empty() || read(&path).anchors().contains(fragment))
            };
            if !found {
                broken.push(link.to_string());
            }
        }
        for code in self.code() {
            let known = FOLDERS
                .iter()
                .any(|&folder| code.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')));
            // NAME stands for a name, … for any.
            let path = code.split(' ').next().unwrap();
            if known && !path.contains("NAME") && !path.contains(['…', '*']) {
                let path = path.split("::").next().unwrap();
                if !root().join(path).exists() {
                    broken.push(code.to_string());
                }
            }
        }
        broken
    }

    /// The words after `limbeck` of every command, in blocks for the shell and in `code`. Words that
    /// stand for several, `gemm|step`, give a command each.
    fn commands(&self) -> Vec<Vec<String>> {
        let shell = self.blocks.iter().filter(|(language, _)| language == "sh");
        let lines: Vec<String> = shell
            .map(|(_, text)| text.replace("\\\n", " "))
            .flat_map(|text| text.lines().map(str::to_string).collect::<Vec<_>>())
            .collect();
        let inline = self.code().filter(|code| code.starts_with("limbeck "));
        inline
            .map(|code| code.replace("\\|", "|"))
            .chain(lines)
            .flat_map(|l| variants(&l))
            .collect()
    }
}

fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|&c| c.is_alphanumeric() || " -_".contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The commands that a line shows: one for each alternative of a word.
fn variants(line: &str) -> Vec<Vec<String>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let named = |word: &&str| *word == "limbeck" || word.ends_with("/limbeck");
    let cargo = words.starts_with(&["cargo", "run"]) && !words.contains(&"--example");
    let start = match words.iter().position(|word| if cargo { *word == "--" } else { named(word) })
    {
        // Those of other programs: `cargo add limbeck`.
        Some(at) if at == 0 || !matches!(words[at - 1], "add" | "cp" | "cd") => at + 1,
        _ => return Vec::new(),
    };
    let ends = |word: &&&str| matches!(**word, "&" | "&&" | "|" | "||" | ">" | "2>" | "#" | ";");
    let words: Vec<&str> = words[start..].iter().take_while(|word| !ends(word)).copied().collect();
    let ends = words.iter().position(|word| word.ends_with(';')).map_or(words.len(), |at| at + 1);
    let words = &words[..ends];

    let alternatives = words.iter().map(|word| word.split('|').count()).max().unwrap_or(1);
    let command = |nth: usize| words.iter().map(|word| one_of(word, nth)).collect();
    (0..alternatives).map(command).collect()
}

/// A word as one would type it: the `nth` alternative or the last, and a number for `N`.
fn one_of(word: &str, nth: usize) -> String {
    let word = word.trim_matches(['[', ']', ';', '"', '\'']);
    let word = word.split('|').nth(nth).or(word.split('|').next_back()).unwrap();
    if word.len() == 1 || word.starts_with('$') { "1".into() } else { word.into() }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> Page {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    Page::parse(path, &text)
}

/// Every Markdown file of the repository.
fn pages() -> Vec<Page> {
    fn collect(folder: &Path, deep: bool, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if deep && path.is_dir() {
                collect(&path, true, found);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    collect(root(), false, &mut found);
    collect(&root().join("python"), false, &mut found);
    for folder in ["benches", "docs", "results"] {
        collect(&root().join(folder), true, &mut found);
    }
    found.iter().map(|path| read(path)).collect()
}

/// The committed HTML page, its links as Markdown has them.
fn gallery() -> Page {
    let path = root().join("results/gallery.html");
    let html = fs::read_to_string(&path).unwrap();
    let links = html.split("href=\"").skip(1).filter_map(|rest| rest.split_once('"'));
    let prose: String = links.map(|(target, _)| format!("[]({target})\n")).collect();
    Page { path, prose, blocks: Vec::new() }
}

#[test]
fn links_and_paths_lead_somewhere() {
    let gallery = gallery();
    assert!(gallery.links().len() > 10);
    let broken: Vec<String> = pages()
        .iter()
        .chain([&gallery])
        .flat_map(|page| {
            let name = page.path.strip_prefix(root()).unwrap().display().to_string();
            page.broken().into_iter().map(move |what| format!("{name}: {what}"))
        })
        .collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn configurations_load() {
    let mut tried = 0;
    for page in pages() {
        for (language, text) in &page.blocks {
            if language == "toml" {
                let loaded = Config::from_toml(text, &page.path);
                assert!(loaded.is_ok(), "{}\n{text}", loaded.unwrap_err());
                tried += 1;
            }
        }
    }
    assert!(tried > 0);
}

#[test]
fn every_key_of_the_configuration_is_documented() {
    let page = read(&root().join("docs/configuration.md"));
    let documented: BTreeSet<&str> = page.code().collect();
    let config = Config { distillation: Some(Default::default()), ..Config::default() };
    let resolved = config.to_toml().unwrap();
    let keys = resolved.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key);
    let missing: Vec<&str> = keys.filter(|key| !documented.contains(key)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_program_knows_the_commands_that_are_shown() {
    let (mut tried, mut refused) = (BTreeSet::new(), Vec::new());
    for page in pages() {
        for command in page.commands() {
            // Options of the feature `mpi`.
            let parallel = ["--peer-timeout", "--fast-allreduce"];
            if !cfg!(feature = "mpi") && command.iter().any(|word| parallel.contains(&&**word)) {
                continue;
            }
            if tried.insert(command.clone()) {
                // The words before --help are judged, and nothing is run.
                let mut program = Command::new(env!("CARGO_BIN_EXE_limbeck"));
                let output = program.args(&command).arg("--help").output().unwrap();
                if !output.status.success() {
                    let says = String::from_utf8_lossy(&output.stderr);
                    refused.push(format!("{}: {command:?}: {says}", page.path.display()));
                }
            }
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    assert!(tried.len() > 20, "{tried:?}");
}

#[test]
fn what_is_wrong_is_seen() {
    let text = "# Two words, *one* `x`\n[a](#two-words-one-x) [b](#no) [c](src) [d](no.md)\n\
                `src/lib.rs` `src/no.rs` `tests/NAME.rs` `limbeck bench gemm\\|step --batch N`\n\
                ```sh\nfor i in 0 1; do limbeck --threads 4 \\\n  train $i.toml & done; wait\n\
                cargo run --release -- reproduce mnist # MNIST\ncp limbeck /bin\n```\n";
    let page = Page::parse(&root().join("page.md"), text);
    assert_eq!(page.broken(), ["#no", "no.md", "src/no.rs"]);
    let commands: Vec<String> = page.commands().iter().map(|words| words.join(" ")).collect();
    let expected =
        ["bench gemm --batch 1", "bench step --batch 1", "--threads 1 train 1", "reproduce mnist"];
    assert_eq!(commands, expected);
}

#[test]
fn the_readme_counts_the_verdicts_that_are_there() {
    let text = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let claims = text("results/README.md");
    let rows: Vec<Vec<&str>> = claims
        .lines()
        .map(|line| line.split(" | ").collect())
        .filter(|cells: &Vec<&str>| cells.len() == 4 && cells[2].starts_with("**"))
        .collect();
    let of = |verdict: &str| rows.iter().filter(|cells| cells[2] == verdict).count();
    let different: BTreeSet<&str> = rows.iter().map(|cells| cells[0]).collect();
    let counted = format!(
        "{} verdicts on {} claims of the paper, some judged in several runs: {} *reproduced*, {} *not \
         reproduced*, {} *inconclusive*",
        rows.len(),
        different.len(),
        of("**reproduced**"),
        of("**not reproduced**"),
        of("**inconclusive**"),
    );
    assert!(rows.len() > 20 && text("README.md").contains(&counted), "{counted}");
}
