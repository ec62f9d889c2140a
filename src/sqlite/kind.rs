//! What databases differ in.

/// SQL that changes the database from one layout to the next.
#[derive(Clone, Copy, Debug)]
pub struct Migration(pub &'static str);

/// A kind of database.
#[derive(Clone, Copy, Debug)]
pub struct Kind<'a> {
    /// As log lines call it, such as `the outbox`.
    pub name: &'static str,
    /// `PRAGMA application_id`, which marks its files.
    pub application_id: i32,
    /// All steps, the first of which makes layout 1 from an empty file.
    pub migrations: &'a [Migration],
    /// What is lost with one that is damaged.
    pub when_damaged: &'static str,
    /// How to come by what a newer version has written.
    pub when_newer: &'static str,
    /// SQL that a new file needs before anything else.
    pub before: &'static str,
    /// Whether all its pages are checked when it is opened.
    pub is_checked: bool,
}
