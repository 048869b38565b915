//! What a setting is. Its one declaration gives the flag, the variable, the key in a file, the default,
//! the range, the help text and the row in the tables.

use std::ffi::OsStr;
use std::fmt::{self, Display};
use std::path::PathBuf;

use super::ConfigError;

/// The one secret that is given as it is. It has a variable and no flag, because flags show in `ps`.
pub(super) const TOKEN: &str = "auth-token";

/// A setting as it is declared, whatever the type of its value.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// What it is called: the flag without its dashes.
    pub name: &'static str,
    /// The heading that it stands under in the help text.
    pub group: &'static str,
    /// What stands for its value in the help text.
    pub value: &'static str,
    /// What it is if nothing is given, as it would be given.
    pub default: Option<&'static str>,
    /// What the tables say where there is no default.
    pub without: &'static str,
    /// One sentence for a terminal.
    pub help: &'static str,
    /// The same for the tables, with all that follows from it.
    pub row: &'static str,
    /// Is it a limit? Those have a table of their own.
    pub is_limit: bool,
    /// May it be given several times, and how are several values written in one variable?
    pub repeats: Repeats,
    /// What a value may be.
    pub takes: Takes,
    pub(super) form: fn(&OsStr) -> Result<(), String>,
}

/// May a setting be given several times?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeats {
    /// Once only.
    No,
    /// Yes; in a variable, commas stand between the values.
    ByCommas,
    /// Yes; in a variable, each line is a value, which may hold commas.
    ByLines,
}

/// What the value of a setting may be.
#[derive(Clone, Copy, Debug)]
pub enum Takes {
    /// The name of a file or directory, which need not be UTF-8.
    File,
    /// Text of a form that [`Setting::check_form`] knows.
    Text,
    /// True or false; a flag without a value means true.
    Switch,
    /// One of these words, in any case. The first of each list is the one that is shown.
    Words(fn() -> Vec<&'static [&'static str]>),
}

/// What most settings are.
pub(super) const PLAIN: Setting = Setting {
    name: "",
    group: "",
    value: "",
    default: None,
    without: "none",
    help: "",
    row: "",
    is_limit: false,
    repeats: Repeats::No,
    takes: Takes::Text,
    form: |_| Ok(()),
};

impl Setting {
    /// The variable that stands for it: `MCP_` and its name, except for one that is older than the
    /// edge.
    #[must_use]
    pub fn variable(&self) -> String {
        variable(self.name)
    }

    /// Can this text be read as its value? What it means together with other settings is judged by
    /// [`Draft::check`](super::Draft::check).
    ///
    /// # Errors
    /// The reason, for a person.
    pub fn check_form(&self, text: &OsStr) -> Result<(), String> {
        (self.form)(text)
    }

    /// May it be given several times?
    #[must_use]
    pub fn is_list(&self) -> bool {
        self.repeats != Repeats::No
    }
}

pub(super) fn variable(name: &str) -> String {
    match name {
        "path" => "MCP_SSE_PATH".to_owned(),
        name => format!("MCP_{}", name.to_uppercase().replace('-', "_")),
    }
}

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// On the command line. Also said of what was given nowhere: a flag is what would give it.
    Flag,
    /// In the environment.
    Variable,
    /// In a file.
    File {
        /// Which one.
        path: PathBuf,
        /// Counted from one.
        line: usize,
        /// Counted from one.
        column: usize,
    },
    /// By the program that the library is linked into.
    Code,
}

/// A setting, as whoever gave it knows it. A flag is named with its variable and a variable with its
/// flag, because one of them is what the reader can change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named<'a> {
    pub(super) name: &'a str,
    pub(super) given: &'a Given,
}

impl Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, given } = self;
        match given {
            Given::Flag | Given::Variable if *name == TOKEN => f.write_str(&variable(name)),
            Given::Flag | Given::Variable => write!(f, "--{name} ({})", variable(name)),
            Given::File { path, line, column } => {
                write!(f, "`{name}` ({}:{line}:{column})", path.display())
            }
            Given::Code => write!(f, "`{name}`"),
        }
    }
}

/// A setting, how its value is read, and whether that is within its range.
#[derive(Debug)]
pub(super) struct Typed<T: 'static> {
    pub(super) setting: Setting,
    pub(super) read: fn(&OsStr) -> Result<T, String>,
    pub(super) check: fn(&'static str, &T) -> Result<(), ConfigError>,
}

/// Declares settings with the type, the reader and the range of each, and the list of them all.
macro_rules! settings {
    (@check) => { |_, _| Ok(()) };
    (@check $KIND:ident $range:expr) => { |name, value| within(&$KIND, name, *value, &$range) };
    ($list:ident: $(
        $NAME:ident: $T:ty = $read:expr, $(within $KIND:ident $range:expr,)? { $($fields:tt)+ }
    )+) => {
        $(
            pub(super) static $NAME: Typed<$T> = Typed {
                setting: Setting {
                    form: |text| ($NAME.read)(text).map(drop),
                    $($fields)+
                },
                read: $read,
                check: settings!(@check $($KIND $range)?),
            };
        )+
        pub(super) static $list: &[&Setting] = &[$(&$NAME.setting),+];
    };
}
pub(super) use settings;
