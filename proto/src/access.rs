//! Users, tokens and roles on the wire, and why somebody may do something.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Timestamp, TopicName, TopicSelector};

/// The body of `POST /api/v1/tokens`.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenCreate {
    /// What it is for, and what stands for `{name}` in its rules: 1 to 128 letters, digits, `_`, `-`, `.` and `@`.
    pub name: String,
    /// What it may do, as in `allow publish,read orders.*`; never more than its maker.
    pub rules: Vec<String>,
    /// Seconds after which it ends; it does not end, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
}

/// The body of `POST /api/v1/tickets`: either `topics` or `rules`.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TicketCreate {
    /// Topics that are read with it, by name or by pattern; 1 to 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false, min_items = 1, max_items = 200))]
    pub topics: Option<Vec<TopicSelector>>,
    /// What it may do, as in `allow publish,read orders.*`; never more than its maker.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub rules: Option<Vec<String>>,
}

/// A ticket that has just been made. `Debug` does not show its text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TicketCreated {
    /// Its text, for the parameter `ticket` of one stream or WebSocket.
    pub ticket: String,
    /// Until when that is to be opened.
    pub expires_at: Timestamp,
}

impl fmt::Debug for TicketCreated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketCreated").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// A token, as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenInfo {
    /// Its id, which is no secret: the part between the two `_` of its text.
    pub token_id: String,
    /// What it is for.
    pub name: String,
    /// What it may do, within what its maker may.
    pub rules: Vec<String>,
    /// Who made it; null if it was made by who has the storage, or on a relay that is open to everybody.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub maker: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends; null if it does not.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub expires_at: Option<Timestamp>,
    /// When it was used last, to the minute; null if it never was.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub last_used_at: Option<Timestamp>,
}

/// A token that has just been made. `Debug` does not show its text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenCreated {
    /// Its text, which nobody is shown again.
    pub token: String,
    /// What is known of it.
    #[serde(flatten)]
    pub info: TokenInfo,
}

impl fmt::Debug for TokenCreated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCreated").field("info", &self.info).finish_non_exhaustive()
    }
}

/// The body of `PUT /api/v1/users/{name}`: what is absent or null stays as it is, and of a new user is empty.
/// `Debug` does not show the password.
#[derive(Clone, Default, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UserUpdate {
    /// A new password: 8 to 1,024 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Its roles, all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<String>>,
    /// Where mail reaches it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Whether it may come in; a new user may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_active: Option<bool>,
}

impl fmt::Debug for UserUpdate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { password, roles, email, is_active } = self;
        f.debug_struct("UserUpdate")
            .field("password", &password.as_ref().map(|_| "***"))
            .field("roles", roles)
            .field("email", email)
            .field("is_active", is_active)
            .finish()
    }
}

/// A user, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UserInfo {
    /// Its name.
    pub name: String,
    /// Its roles.
    pub roles: Vec<String>,
    /// Where mail reaches it.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub email: Option<String>,
    /// Whether it may come in.
    pub is_active: bool,
    /// Whether it can log in with a password.
    pub has_password: bool,
    /// When it was made.
    pub created_at: Timestamp,
}

/// The body of `PUT /api/v1/roles/{role}`.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RoleUpdate {
    /// Its rules, all of them.
    pub rules: Vec<String>,
}

/// A role, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RoleInfo {
    /// Its name.
    pub role: String,
    /// Its rules.
    pub rules: Vec<String>,
    /// Whether it is there before anybody has written one.
    pub is_ready_made: bool,
}

/// The body of `POST /api/v1/access/explain`.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Explain {
    /// What is to be done: `publish`, `read`, `work`, `manage` or `admin`.
    pub verb: String,
    /// With which topic; not needed for `admin`, which is about the relay as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<TopicName>,
    /// By whom: a user's name, a token's id, or `anonymous`; whoever asks, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
}

/// What decides whether somebody may do something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Explained {
    /// Whether it is allowed.
    pub allowed: bool,
    /// The rule that decides; null where none says anything, which is no.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub rule: Option<String>,
    /// Whom it was asked about.
    pub principal: String,
}
