//! The microkernels' inner loops, as the compiler wrote them.
#![cfg(target_arch = "x86_64")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// The crate's assembly, as a release build has it.
fn assembly() -> String {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("assembly");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let built = Command::new(cargo)
        .args(["rustc", "--release", "--lib", "--manifest-path"])
        .arg(manifest)
        .arg("--target-dir")
        .arg(&target)
        .args(["--", "--emit", "asm", "-C", "codegen-units=1"])
        // Lines for the debugger change no instruction, and take a tenth of the time.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "none")
        .output()
        .expect("cargo");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let mut newest = None;
    for entry in std::fs::read_dir(target.join("release/deps")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "s") {
            let modified = path.metadata().unwrap().modified().unwrap();
            newest = newest.max(Some((modified, path)));
        }
    }
    std::fs::read_to_string(newest.expect("an assembly file").1).unwrap()
}

/// The innermost loops: from a label to the jump back to it, with no other such jump between.
fn innermost_loops(assembly: &str) -> Vec<Vec<&str>> {
    let lines: Vec<&str> = assembly.lines().map(str::trim).collect();
    let mut labels = BTreeMap::new();
    let mut loops = Vec::new();
    let mut last_back = 0;
    for (i, line) in lines.iter().enumerate() {
        if let Some(label) = line.strip_suffix(':') {
            labels.insert(label, i);
        } else if line.starts_with('j')
            && let Some(&start) = line.split_whitespace().nth(1).and_then(|to| labels.get(to))
        {
            if start >= last_back {
                // Without the debugger's directives and labels.
                let body = lines[start + 1..i].iter().filter(|line| !line.starts_with('.'));
                loops.push(body.copied().collect());
            }
            last_back = i;
        }
    }
    loops
}

/// Registers that a loop's multiply-adds accumulate in; AT&T syntax names it last.
fn accumulators<'a>(body: &[&'a str], register: &str) -> BTreeSet<&'a str> {
    let sums = body.iter().filter(|line| line.starts_with("vfmadd"));
    let targets = sums.filter_map(|line| line.rsplit([' ', ',', '\t']).next());
    targets.filter(|target| target.starts_with(register)).collect()
}

/// The loops of at least `steps` outer products with `sums` sums in full `register`s hold nothing
/// that is slow. Shorter ones are the last steps of a sum, at most 15. Those of pairs take the halves
/// out of each word, and are one step; multiply-adds are at least `of_pairs` of them.
fn check(loops: &[Vec<&str>], register: &str, (sums, steps): (usize, usize), of_pairs: f64) {
    let multiply_adds = |body: &[&str]| body.iter().filter(|l| l.starts_with("vfmadd")).count();
    // Shifts, masks, and what the compiler puts in place of a mask.
    let takes_halves = |body: &[&str]| {
        body.iter()
            .any(|line| ["vpslld", "vpand", "vpblendw"].iter().any(|op| line.starts_with(op)))
    };
    // Exponentials shift bits too, and have many multiply-adds into the same sum.
    let main = |body: &&Vec<&str>| {
        let enough = match takes_halves(body) {
            true => multiply_adds(body) == sums,
            false => multiply_adds(body) >= sums * steps,
        };
        accumulators(body, register).len() == sums && enough
    };
    let (pairs, values): (Vec<_>, Vec<_>) =
        loops.iter().filter(main).partition(|body| takes_halves(body));
    // At least one for each of the ways in which A is walked; of pairs, one for each half.
    assert!(values.len() >= 2, "{} loops with {sums} sums in {register}", values.len());
    assert!(pairs.len() >= 2, "{} loops of pairs with {sums} sums in {register}", pairs.len());
    for body in pairs.iter().chain(&values) {
        let count = |part: &str| body.iter().filter(|line| line.contains(part)).count();
        let listing = body.join("\n");
        assert_eq!(multiply_adds(body) % sums, 0, "whole outer products:\n{listing}");
        assert_eq!(count("call"), 0, "no call:\n{listing}");
        let spilled = |line: &&&str| line.starts_with('v') && line.contains("(%rsp");
        assert_eq!(body.iter().filter(spilled).count(), 0, "no sum on the stack:\n{listing}");
        let share = if takes_halves(body) { of_pairs } else { 0.5 };
        let found = multiply_adds(body) as f64 / body.len() as f64;
        assert!(found > share, "mostly multiply-adds, found {found}:\n{listing}");
    }
}

#[test]
fn the_inner_loops_are_multiply_adds_on_full_registers() {
    let assembly = assembly();
    let loops = innermost_loops(&assembly);
    // 8 rows of three panels, one register each, and 6 rows of one panel, two registers.
    check(&loops, "%zmm", (24, 1), 0.5);
    check(&loops, "%ymm", (12, 4), 0.4);
    check_tiles(&loops);
}

/// The loops of 2 × 2 tiles are four products with four loads, and what counts.
fn check_tiles(loops: &[Vec<&str>]) {
    let count = |body: &[&str], of: &str| body.iter().filter(|line| line.starts_with(of)).count();
    let full = |body: &&Vec<&str>| count(body, "tdpbf16ps") == 4 && count(body, "tileload") > 0;
    let full: Vec<_> = loops.iter().filter(full).collect();
    // Inlined into every product of a training step.
    assert!(full.len() >= 3, "{} loops of tiles", full.len());
    for body in full {
        let listing = body.join("\n");
        assert_eq!(count(body, "tileloadd"), 4, "a load for each product:\n{listing}");
        assert!(body.len() <= 8 + 5, "four pointers and a counter:\n{listing}");
    }
}

#[test]
fn the_search_finds_inner_loops_alone() {
    let assembly = "
        .outer:
            movq %rax, %rbx
        .inner:
            vfmadd231ps (%rax){1to16}, %zmm1, %zmm2
            vfmadd231ps 4(%rax){1to16}, %zmm1, %zmm3
            jne .inner
            jne .outer
            jmp .forward
        .forward:
            ret";
    let loops = innermost_loops(assembly);
    assert_eq!(loops.len(), 1);
    assert_eq!(accumulators(&loops[0], "%zmm").len(), 2);
    assert_eq!(accumulators(&loops[0], "%ymm").len(), 0);
}
