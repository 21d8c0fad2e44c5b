//! What calls do with the sums of behaviours.

/// A call that changes tables by behaviours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Encode,
    Append,
    Remove,
}

impl Change {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Encode => "sdim_encode",
            Self::Append => "sdim_append",
            Self::Remove => "sdim_remove",
        }
    }

    /// Whether what the table holds stays, and sums are added to it.
    pub(crate) fn appends(self) -> bool {
        self != Self::Encode
    }

    /// Whether sums have the other sign.
    pub(crate) fn subtracts(self) -> bool {
        self == Self::Remove
    }
}
