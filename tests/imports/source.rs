//! The source of a crate as files that name each other.
//!
//! [`Source::read`] starts at the root of a crate, follows its `mod` lines and collects every path that the
//! code names: `use` trees, paths in expressions, types and patterns, and paths inside macro calls. Items
//! that are built for tests only are left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::{
    Attribute, Field, FieldValue, ImplItem, Item, ItemMod, ItemUse, Macro, Meta, Stmt, TraitItem, UseTree,
    VisRestricted, Visibility, punctuated::Punctuated, token::Comma, visit::Visit,
};

/// A module by its names from the root of the crate, which itself has none.
type Module = Vec<String>;

/// One place where a file names something outside itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// The file that names it, relative to the crate's folder.
    pub from: String,
    pub line: usize,
    /// As it is written.
    pub path: String,
    pub to: Target,
    /// Whether it is a `pub use`.
    pub re_export: bool,
}

/// What a [`Reference`] leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A file of the same crate, relative to its folder.
    File(String),
    /// Another crate.
    Crate(String),
}

/// All references of a crate, and its files.
#[derive(Debug, Default)]
pub struct Source {
    /// Relative to the crate's folder, with `/`.
    pub files: BTreeSet<String>,
    pub references: Vec<Reference>,
}

impl Source {
    /// Reads the crate whose root is the file `root` (`lib.rs`, `bin/golden.rs`) below `folder`, and returns
    /// its references in order of file and line.
    ///
    /// # Panics
    /// When a file is missing or is not Rust.
    pub fn read(folder: &Path, root: &str) -> Self {
        let mut tree = Tree { folder: folder.to_owned(), files: BTreeMap::new(), named: Vec::new() };
        tree.file(&folder.join(root), &[]);
        let files = tree.files.values().cloned().collect();
        let mut references: Vec<_> = tree.named.iter().filter_map(|named| tree.resolve(named)).collect();
        references.sort();
        references.dedup();
        Self { files, references }
    }
}

/// A path as it was found.
struct Named {
    module: Module,
    file: String,
    line: usize,
    segments: Vec<String>,
    how: How,
}

/// How a path is named.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// In an expression, a type, a pattern or a macro call.
    Inline,
    Use,
    PubUse,
}

/// The modules of a crate, while they are read.
struct Tree {
    folder: PathBuf,
    /// The file that each module stands in.
    files: BTreeMap<Module, String>,
    named: Vec<Named>,
}

impl Tree {
    /// Reads a file and the modules that it declares.
    fn file(&mut self, path: &Path, module: &[String]) {
        let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let parsed = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let name = path.strip_prefix(&self.folder).expect("below the root").display().to_string();
        self.files.insert(module.to_vec(), name.clone());
        // A file `mod.rs`, `lib.rs` or `main.rs` has its children beside it, every other in a folder of its name.
        let children = match path.file_stem().and_then(|stem| stem.to_str()) {
            Some("mod" | "lib" | "main") => path.parent().expect("a folder").to_owned(),
            _ => path.with_extension(""),
        };
        let mut visitor = Visitor { tree: self, module: module.to_vec(), file: name, children };
        visitor.visit_file(&parsed);
    }

    /// Returns what a path leads to: a file of this crate other than the one that names it, or another
    /// crate. None for names that are declared in the file itself and for built-in types.
    fn resolve(&self, named: &Named) -> Option<Reference> {
        let first = named.segments.first()?.as_str();
        let mut at: Module = match first {
            "crate" => Vec::new(),
            "self" | "super" => named.module.clone(),
            _ if self.files.contains_key(&[named.module.clone(), vec![first.to_owned()]].concat()) => {
                named.module.clone()
            }
            _ => {
                let to = Target::Crate(first.to_owned());
                // One name alone in an expression is a local one.
                let leads_out = named.segments.len() > 1 || named.how != How::Inline;
                return leads_out.then(|| named.reference(to));
            }
        };
        for segment in &named.segments {
            match segment.as_str() {
                "crate" | "self" => {}
                "super" => _ = at.pop(),
                name => {
                    let deeper = [at.clone(), vec![name.to_owned()]].concat();
                    if !self.files.contains_key(&deeper) {
                        break;
                    }
                    at = deeper;
                }
            }
        }
        let to = &self.files[&at];
        (*to != named.file).then(|| named.reference(Target::File(to.clone())))
    }
}

impl Named {
    fn reference(&self, to: Target) -> Reference {
        let (from, path) = (self.file.clone(), self.segments.join("::"));
        Reference { from, line: self.line, path, to, re_export: self.how == How::PubUse }
    }
}

/// Walks one file.
struct Visitor<'a> {
    tree: &'a mut Tree,
    module: Module,
    file: String,
    /// Where the files of child modules lie.
    children: PathBuf,
}

impl Visitor<'_> {
    fn name(&mut self, mut segments: Vec<String>, span: Span, how: How) {
        // `use a::{self}` is `use a`.
        if segments.len() > 1 && segments.last().is_some_and(|last| last == "self") {
            segments.pop();
        }
        let (module, file) = (self.module.clone(), self.file.clone());
        self.tree.named.push(Named { module, file, line: span.start().line, segments, how });
    }

    fn use_tree(&mut self, before: &[String], tree: &UseTree, how: How) {
        let with = |ident: &syn::Ident| [before, &[ident.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.use_tree(&with(&path.ident), &path.tree, how),
            UseTree::Name(name) => self.name(with(&name.ident), name.ident.span(), how),
            UseTree::Rename(name) => self.name(with(&name.ident), name.ident.span(), how),
            UseTree::Glob(glob) => self.name(before.to_vec(), glob.star_token.spans[0], how),
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.use_tree(before, tree, how));
            }
        }
    }

    /// Finds `a::b` in what a macro is given, which is not parsed.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let (mut start, mut colons) = (Span::call_site(), 0);
        for token in tokens {
            match token {
                TokenTree::Ident(ident) if colons == 2 => path.push(ident.to_string()),
                TokenTree::Ident(ident) => {
                    self.path_in_tokens(&mut path, start);
                    start = ident.span();
                    path.push(ident.to_string());
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => {
                    colons += 1;
                    continue;
                }
                TokenTree::Group(group) => {
                    self.path_in_tokens(&mut path, start);
                    self.tokens(group.stream());
                }
                _ => self.path_in_tokens(&mut path, start),
            }
            colons = 0;
        }
        self.path_in_tokens(&mut path, start);
    }

    fn path_in_tokens(&mut self, path: &mut Vec<String>, start: Span) {
        let path = std::mem::take(path);
        if path.len() > 1 {
            self.name(path, start, How::Inline);
        }
    }
}

impl<'ast> Visit<'ast> for Visitor<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !only_for_tests(attributes(item)) {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes = match item {
            ImplItem::Const(item) => &item.attrs[..],
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Type(item) => &item.attrs,
            ImplItem::Macro(item) => &item.attrs,
            _ => &[],
        };
        if !only_for_tests(attributes) {
            syn::visit::visit_impl_item(self, item);
        }
    }

    fn visit_trait_item(&mut self, item: &'ast TraitItem) {
        let attributes = match item {
            TraitItem::Const(item) => &item.attrs[..],
            TraitItem::Fn(item) => &item.attrs,
            _ => &[],
        };
        if !only_for_tests(attributes) {
            syn::visit::visit_trait_item(self, item);
        }
    }

    fn visit_field(&mut self, field: &'ast Field) {
        if !only_for_tests(&field.attrs) {
            syn::visit::visit_field(self, field);
        }
    }

    fn visit_field_value(&mut self, field: &'ast FieldValue) {
        if !only_for_tests(&field.attrs) {
            syn::visit::visit_field_value(self, field);
        }
    }

    fn visit_stmt(&mut self, stmt: &'ast Stmt) {
        let attributes = match stmt {
            Stmt::Local(local) => &local.attrs[..],
            Stmt::Macro(call) => &call.attrs,
            _ => &[],
        };
        if !only_for_tests(attributes) {
            syn::visit::visit_stmt(self, stmt);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        // What lies elsewhere (`#[path = "../../tests/support/golden.rs"]`) is not of this tree.
        if item.attrs.iter().any(|attribute| attribute.path().is_ident("path")) {
            return;
        }
        let name = item.ident.to_string();
        let module = [&self.module[..], std::slice::from_ref(&name)].concat();
        if let Some((_, items)) = &item.content {
            self.tree.files.insert(module.clone(), self.file.clone());
            let (tree, file, children) = (&mut *self.tree, self.file.clone(), self.children.join(name));
            let mut inside = Visitor { tree, module, file, children };
            items.iter().for_each(|item| inside.visit_item(item));
            return;
        }
        let beside = self.children.join(format!("{name}.rs"));
        let inside = self.children.join(&name).join("mod.rs");
        self.tree.file(if beside.exists() { &beside } else { &inside }, &module);
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let how = if matches!(item.vis, Visibility::Inherited) { How::Use } else { How::PubUse };
        self.use_tree(&[], &item.tree, how);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if let Some(first) = path.segments.first() {
            let segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.name(segments, first.ident.span(), How::Inline);
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        syn::visit::visit_macro(self, call);
        self.tokens(call.tokens.clone());
    }

    /// `pub(in crate::capture)` says who may see, and imports nothing.
    fn visit_vis_restricted(&mut self, _: &'ast VisRestricted) {}

    fn visit_attribute(&mut self, _: &'ast Attribute) {}
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether `#[test]`, or a `#[cfg]` that does not hold without `test`, stands on an item.
fn only_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("cfg") => list.parse_args().is_ok_and(|it| needs_test(&it)),
        _ => false,
    })
}

fn needs_test(condition: &Meta) -> bool {
    match condition {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("all") => list
            .parse_args_with(Punctuated::<Meta, Comma>::parse_terminated)
            .is_ok_and(|all| all.iter().any(needs_test)),
        _ => false,
    }
}
