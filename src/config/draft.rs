//! Settings as they were given, by name and text, and not yet checked against each other.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;

use super::kind::NumberKind;
use super::setting::{TOKEN, Typed};
use super::{ConfigError, Given, Reason, Setting};

/// Settings as they were given. Several lie over each other: the command line over the environment.
/// What is in none of them has its default.
#[derive(Clone, Default)]
pub struct Draft {
    given: BTreeMap<&'static str, (Vec<OsString>, Given)>,
    /// The program to run behind the edge, and its arguments.
    pub command: Vec<String>,
    /// Was there a `--`, whether or not a command stands behind it?
    pub names_command: bool,
}

/// Names only: values may be secret.
impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.given.keys()).finish()
    }
}

impl Draft {
    /// Takes what was given for one of the [`settings`](super::settings).
    pub fn set(&mut self, setting: &'static Setting, texts: Vec<OsString>, given: Given) {
        let _before = self.given.insert(setting.name, (texts, given));
    }

    /// Takes the token itself, from the environment.
    pub fn set_token(&mut self, token: OsString) {
        let _before = self.given.insert(TOKEN, (vec![token], Given::Variable));
    }

    /// Was anything given for this setting?
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// What was given for this setting.
    pub fn texts(&self, name: &str) -> impl Iterator<Item = &OsStr> {
        self.given.get(name).into_iter().flat_map(|(texts, _)| texts).map(OsString::as_os_str)
    }

    /// This draft, with what it leaves out taken from another.
    #[must_use]
    pub fn over(mut self, under: Self) -> Self {
        for (name, value) in under.given {
            let _kept = self.given.entry(name).or_insert(value);
        }
        if self.command.is_empty() && !self.names_command {
            (self.command, self.names_command) = (under.command, under.names_command);
        }
        self
    }

    pub(super) fn given(&self, name: &str) -> Given {
        self.given.get(name).map_or(Given::Flag, |(_, given)| given.clone())
    }

    /// An error about this setting, as it was given.
    pub(super) fn error(
        &self,
        name: &'static str,
        value: impl Into<Option<String>>,
        reason: Reason,
    ) -> ConfigError {
        let value = value.into().map(String::into_boxed_str);
        ConfigError { key: name, value, reason, given: self.given(name) }
    }

    /// What was made of a setting, with an error that knows where it was given.
    pub(super) fn placed<T>(&self, made: Result<T, ConfigError>) -> Result<T, ConfigError> {
        made.map_err(|error| {
            let key = error.key;
            error.of(key, self.given(key))
        })
    }

    /// A number, if one was given.
    pub(super) fn number<T>(
        &self,
        kind: &NumberKind<T>,
        name: &'static str,
    ) -> Result<Option<T>, ConfigError> {
        self.texts(name).last().map(|text| self.understood(name, text, kind.read)).transpose()
    }

    fn understood<T>(
        &self,
        name: &'static str,
        text: &OsStr,
        read: impl Fn(&OsStr) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        // What may be secret is read as plain text, which fails only where it is not UTF-8.
        let shown = text.to_str().map(str::to_owned);
        read(text).map_err(|why| self.error(name, shown, Reason::Form(why)))
    }

    fn checked<T>(&self, typed: &Typed<T>, text: &OsStr) -> Result<T, ConfigError> {
        let name = typed.setting.name;
        let value = self.understood(name, text, typed.read)?;
        self.placed((typed.check)(name, &value))?;
        Ok(value)
    }

    /// The value of a setting that has no default, if one was given.
    pub(super) fn option<T>(&self, typed: &Typed<T>) -> Result<Option<T>, ConfigError> {
        let Setting { name, default, .. } = typed.setting;
        let text = self.texts(name).last().or(default.map(OsStr::new));
        text.map(|text| self.checked(typed, text)).transpose()
    }

    /// The value of a setting that has a default.
    pub(super) fn value<T>(&self, typed: &Typed<T>) -> Result<T, ConfigError> {
        let missing =
            || self.error(typed.setting.name, None, Reason::Form("is missing".to_owned()));
        self.option(typed)?.ok_or_else(missing)
    }

    /// What `make` reads from a text of this setting. An error names the setting, and where it was given.
    pub(super) fn made<T>(
        &self,
        typed: &Typed<String>,
        text: &str,
        make: impl Fn(&str) -> Result<T, ConfigError>,
    ) -> Result<T, ConfigError> {
        let name = typed.setting.name;
        make(text).map_err(|error| error.of(name, self.given(name)))
    }

    /// The same for all texts of a setting that may be given several times.
    pub(super) fn made_list<T>(
        &self,
        typed: &Typed<String>,
        make: impl Fn(&str) -> Result<T, ConfigError>,
    ) -> Result<Vec<T>, ConfigError> {
        self.list(typed)?.iter().map(|text| self.made(typed, text, &make)).collect()
    }

    /// All values of a setting that may be given several times.
    pub(super) fn list<T>(&self, typed: &Typed<T>) -> Result<Vec<T>, ConfigError> {
        self.texts(typed.setting.name).map(|text| self.checked(typed, text)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;
    use crate::config::settings;

    fn draft(name: &str, text: impl Into<OsString>, given: Given) -> Draft {
        let mut draft = Draft::default();
        let setting = settings().find(|it| it.name == name).unwrap();
        draft.set(setting, vec![text.into()], given);
        draft
    }

    #[test]
    fn a_draft_lies_over_another() {
        let file = Given::File { path: "edge.yaml".into(), line: 12, column: 3 };
        let below = draft("burst", "1", file.clone()).over(draft("port", "9", file.clone()));
        let draft = draft("port", "8", Given::Flag).over(below);
        assert_eq!(draft.texts("port").collect::<Vec<_>>(), ["8"]);
        assert_eq!((draft.given("port"), draft.given("burst")), (Given::Flag, file));
        assert!(!draft.has("path") && draft.has("burst"));
    }

    #[test]
    fn the_upper_command_holds_even_if_it_is_an_empty_one() {
        let named = |words: &[&str]| Draft {
            command: words.iter().map(|&word| word.to_owned()).collect(),
            names_command: true,
            ..Draft::default()
        };
        assert_eq!(named(&["upper", "x"]).over(named(&["lower"])).command, ["upper", "x"]);
        let kept = Draft::default().over(named(&["lower"]));
        assert!(kept.names_command && kept.command == ["lower"]);
        assert!(named(&[]).over(named(&["lower"])).command.is_empty());
    }

    #[test]
    fn an_error_knows_where_the_value_was_given() {
        let told = |given| draft("burst", "-1", given).check().unwrap_err().to_string();
        let why = "\"-1\": give a whole number, as 20";
        assert_eq!(told(Given::Flag), format!("--burst (MCP_BURST) {why}"));
        assert_eq!(told(Given::Variable), format!("--burst (MCP_BURST) {why}"));
        let file = Given::File { path: "edge.yaml".into(), line: 12, column: 3 };
        assert_eq!(told(file), format!("`burst` (edge.yaml:12:3) {why}"));
        assert_eq!(told(Given::Code), format!("`burst` {why}"));
    }

    #[test]
    fn a_value_that_may_be_secret_is_not_in_the_error_about_it() {
        for name in ["env", "pass-env", "upstream"] {
            let text = OsString::from_vec(b"hunter2\xff".to_vec());
            let error = draft(name, text, Given::Flag).check().unwrap_err();
            assert!(matches!(error.reason, Reason::Form(_)) && error.key == name, "{error:?}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn a_draft_does_not_show_its_values() {
        let mut draft = draft("env", "A=hunter2", Given::Flag);
        draft.set_token("hunter2".into());
        assert_eq!(format!("{draft:?}"), r#"{"auth-token", "env"}"#);
    }
}
