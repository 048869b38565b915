//! What a grant allows: the one decision about a call, before the backend gets it.

use crate::caller::Grant;

/// Who may ask the backend for what. There are no rules yet: whoever was admitted may make every
/// call.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ToolPolicy {}

impl ToolPolicy {
    /// Does any rule name tools? Only then a call is read for the tool that it names.
    #[expect(clippy::unused_self, reason = "rules will be a field")]
    pub(crate) fn names_tools(self) -> bool {
        false
    }
}

/// Why a call may not be made. No rule, no reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {}

/// May a request of this method, and of this tool if it names one, be made under this grant? There is
/// no rule yet, so the answer is always yes.
///
/// # Errors
/// [`Denied`] says why not.
#[expect(clippy::unnecessary_wraps, reason = "the shape that every rule will have")]
pub(crate) fn permit(
    _policy: ToolPolicy,
    _grant: &Grant,
    _method: &str,
    _tool: Option<&str>,
) -> Result<(), Denied> {
    Ok(())
}
