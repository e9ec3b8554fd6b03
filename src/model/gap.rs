//! Holes in a tape: why, when, and what became of them.

use std::str::FromStr;

use super::UnixMicros;

/// A half-open stretch of published time, `[from, to)`; without `to` it is still growing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Window {
    /// First instant that may miss something.
    pub from: UnixMicros,
    /// First instant that is whole again.
    pub to: Option<UnixMicros>,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word in segments, the catalog and output.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                Self::ALL.iter().copied().find(|x| x.name() == name).ok_or_else(|| format!("unknown word `{name}`"))
            }
        }
    };
}

words! {
    /// Why a gap was opened.
    Cause {
        /// The connection ended or broke.
        ConnectionLost = "connection_lost",
        /// The provider would not let us in.
        Refused = "refused",
        /// The key was rejected.
        Auth = "auth",
        /// The account has no credits or no plan for it.
        Credits = "credits",
        /// The provider asked us to slow down.
        RateLimited = "rate_limited",
        /// The host could not be reached: name, route, TLS.
        Unreachable = "unreachable",
        /// The recorder was stopped in good order.
        Stopped = "stopped",
        /// The recorder ended without a farewell: kill, crash, power.
        Killed = "killed",
        /// Nothing was heard for longer than the provider's heartbeat allows.
        Silent = "silent",
        /// Another client took the connection's place.
        Replaced = "replaced",
        /// The queue to the disk was full and envelopes had to be dropped.
        Overload = "overload",
        /// A frame broke the protocol and the connection with it.
        Protocol = "protocol",
        /// The disk refused a write; nothing was recorded until it took them again.
        Disk = "disk",
        /// A block of a segment is damaged.
        Damaged = "damaged",
        /// A torn tail was cut off on opening.
        TornTail = "torn_tail",
        /// A subscription was not refreshed in time.
        SubscriptionLapsed = "subscription_lapsed",
        /// The provider would not serve a topic.
        SubscriptionRefused = "subscription_refused",
        /// A page came back full: what did not fit is unknown.
        FullPage = "full_page",
        /// Meta, update or delete of a post whose content never came.
        Orphan = "orphan",
        /// The machine slept.
        Suspended = "suspended",
        /// An audit found an event in history that the stream never delivered.
        ProviderDropped = "provider_dropped",
        /// A scope was added or changed and is not yet known to be effective.
        ScopeChanged = "scope_changed",
        /// Only another recorder was at work: time that a merge brought with it.
        Elsewhere = "elsewhere",
    }
}

words! {
    /// What became of a gap; append-only.
    GapState {
        /// Known, nothing done.
        Open = "open",
        /// A way to fill it is known, with its price.
        Planned = "planned",
        /// Being filled.
        Filling = "filling",
        /// Proven whole.
        Filled = "filled",
        /// Some of it is whole.
        Partial = "partial",
        /// No history can fill it.
        Unfillable = "unfillable",
        /// Somebody decided to live with it.
        Ignored = "ignored",
        /// Checked again later.
        Audited = "audited",
        /// The records it lost are back, byte for byte.
        Restored = "restored",
        /// What was received around it was removed from the tape on purpose: nobody fills it any more.
        Pruned = "pruned",
    }
}

impl GapState {
    /// Whether loss is still possible.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Open | Self::Planned | Self::Filling | Self::Partial)
    }
}
