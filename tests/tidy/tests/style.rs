// SPDX-License-Identifier: GPL-2.0

//! What a reviewer should not have to look for: sizes, headers, and where `unsafe` may stand.
//!
//! Sizes: a file has at most 800 lines, a function 70, a line 100 columns (architecture.md §7).

use std::fs;
use std::path::{Path, PathBuf};

use syn::spanned::Spanned;
use syn::visit::Visit;
use walkdir::WalkDir;

const FILE_LINES: usize = 800;
const FUNCTION_LINES: usize = 70;
const COLUMNS: usize = 100;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the project's root")
}

/// All source files with one of the endings, as (path below the root, text).
fn sources(endings: &[&str]) -> Vec<(String, String)> {
    let root = root();
    let skipped = |name: &str| name == "target" || (name.starts_with('.') && name.len() > 1);
    WalkDir::new(&root)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(|e| e.depth() == 0 || !skipped(&e.file_name().to_string_lossy()))
        .map(|e| e.expect("a readable tree").into_path())
        .filter(|p| {
            let ending = p.extension().unwrap_or_default().to_string_lossy();
            // `*.mod.c` is what Kbuild leaves behind.
            endings.contains(&&*ending) && !p.to_string_lossy().ends_with(".mod.c")
        })
        .map(|p| {
            let text = fs::read_to_string(&p).expect("a readable file");
            (
                p.strip_prefix(&root)
                    .expect("below the root")
                    .display()
                    .to_string(),
                text,
            )
        })
        .collect()
}

fn fail_on(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn files_and_lines_are_short() {
    let mut found = Vec::new();
    for (path, text) in sources(&["rs", "c", "h", "sh"]) {
        let lines = text.lines().count();
        if lines > FILE_LINES {
            found.push(format!("{path}: {lines} lines"));
        }
        for (n, line) in text.lines().enumerate() {
            if line.chars().count() > COLUMNS {
                found.push(format!(
                    "{path}:{}: {} columns",
                    n + 1,
                    line.chars().count()
                ));
            }
        }
    }
    fail_on("longer than 800 lines or 100 columns", found);
}

#[test]
fn every_file_says_its_licence_and_what_it_is() {
    let mut found = Vec::new();
    for (path, text) in sources(&["rs"]) {
        if !text.starts_with("// SPDX-License-Identifier: GPL-2.0\n") {
            found.push(format!("{path}: no SPDX line first"));
        }
        if !text.lines().any(|l| l.starts_with("//!")) {
            found.push(format!("{path}: no //! that says what it is"));
        }
    }
    fail_on("headers", found);
}

#[test]
fn nothing_is_left_for_later() {
    // Spelled in two halves, so that this file does not find itself.
    let words = [
        ["todo", "!("],
        ["unimplemented", "!("],
        ["FIX", "ME"],
        ["TO", "DO"],
    ];
    let allowed = ["allow(dead", "_code)"].concat();
    let mut found = Vec::new();
    for (path, text) in sources(&["rs", "c", "h"]) {
        for (n, line) in text.lines().enumerate() {
            if words.iter().any(|w| line.contains(&w.concat())) || line.contains(&allowed) {
                found.push(format!("{path}:{}: {}", n + 1, line.trim()));
            }
        }
    }
    fail_on("stubs and dead code", found);
}

/// Functions that are too long, and unsafe code, in one file.
#[derive(Default)]
struct Finder {
    long: Vec<(String, usize, usize)>,
    unsafes: Vec<usize>,
}

impl Finder {
    fn measure(&mut self, name: String, whole: proc_macro2::Span) {
        let lines = whole.end().line - whole.start().line + 1;
        if lines > FUNCTION_LINES {
            self.long.push((name, whole.start().line, lines));
        }
    }
}

impl<'a> Visit<'a> for Finder {
    fn visit_item_fn(&mut self, f: &'a syn::ItemFn) {
        self.measure(
            f.sig.ident.to_string(),
            f.sig.span().join(f.block.span()).unwrap_or(f.span()),
        );
        if let Some(word) = f.sig.unsafety {
            self.unsafes.push(word.span.start().line);
        }
        syn::visit::visit_item_fn(self, f);
    }

    fn visit_impl_item_fn(&mut self, f: &'a syn::ImplItemFn) {
        self.measure(
            f.sig.ident.to_string(),
            f.sig.span().join(f.block.span()).unwrap_or(f.span()),
        );
        if let Some(word) = f.sig.unsafety {
            self.unsafes.push(word.span.start().line);
        }
        syn::visit::visit_impl_item_fn(self, f);
    }

    fn visit_expr_unsafe(&mut self, e: &'a syn::ExprUnsafe) {
        self.unsafes.push(e.unsafe_token.span.start().line);
        syn::visit::visit_expr_unsafe(self, e);
    }

    fn visit_item_impl(&mut self, i: &'a syn::ItemImpl) {
        if let Some(word) = i.unsafety {
            self.unsafes.push(word.span.start().line);
        }
        syn::visit::visit_item_impl(self, i);
    }
}

fn examine(path: &str, text: &str) -> Finder {
    let file = syn::parse_file(text).unwrap_or_else(|e| panic!("{path}: {e}"));
    let mut finder = Finder::default();
    finder.visit_file(&file);
    finder
}

#[test]
fn functions_are_short() {
    let mut found = Vec::new();
    for (path, text) in sources(&["rs"]) {
        for (name, line, lines) in examine(&path, &text).long {
            found.push(format!("{path}:{line}: fn {name} has {lines} lines"));
        }
    }
    fail_on("functions longer than 70 lines", found);
}

#[test]
fn unsafe_stands_in_kapi_only() {
    let (mut outside, mut inside) = (Vec::new(), 0);
    for (path, text) in sources(&["rs"]) {
        let lines = examine(&path, &text).unsafes;
        if path.starts_with("drbd_rs/kapi/") {
            inside += lines.len();
        } else {
            outside.extend(lines.iter().map(|l| format!("{path}:{l}")));
        }
    }
    println!("unsafe under drbd_rs/kapi: {inside}");
    fail_on("unsafe outside drbd_rs/kapi", outside);
}

#[test]
fn rings_point_inwards() {
    let mut found = Vec::new();
    for (path, text) in sources(&["rs"]) {
        for (n, line) in text.lines().enumerate() {
            let code = line.trim_start();
            if code.starts_with("//") {
                continue;
            }
            let in_core = path.starts_with("drbd_rs/core/");
            let in_kapi = path.starts_with("drbd_rs/kapi/");
            let in_driver = path.starts_with("drbd_rs/src/");
            let kernel = code.contains("kernel::") && in_core;
            let raw = code.contains("bindings::") && in_driver;
            let upwards = in_kapi && code.contains("drbd_core");
            if kernel || raw || upwards {
                found.push(format!("{path}:{}: {code}", n + 1));
            }
        }
    }
    fail_on(
        "core knows no kernel, kapi knows no DRBD, bindings stay in kapi",
        found,
    );
}
