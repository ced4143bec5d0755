//! Users, tokens and roles on the wire, and why somebody may do something.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Timestamp, TopicName, TopicSelector};

/// Longest life of a token that has an end, in seconds: ten years. Longer ones are mistakes of unit.
pub const LIFE_SECONDS_MAX: u64 = 10 * 366 * 24 * 60 * 60;

/// The body of `POST /api/v1/tokens`.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenCreate {
    /// What it is for, and what stands for `{name}` in its rules: 1 to 128 letters, digits, `_`, `-`, `.` and `@`.
    pub name: String,
    /// What it may do, as in `allow publish,read orders.*`; never more than its maker.
    pub rules: Vec<String>,
    /// After how long it ends: a whole number of seconds, or text with a unit (`"90s"`, `"30d"`); it does not end, if absent.
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
    /// What its rules allow and its maker surely may not, which gives nothing now; absent where there is none. Each is
    /// one of the rules, with those of its verbs alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub beyond_maker: Vec<String>,
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
    /// A new password: 8 characters or more, of at most 1,024 bytes.
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
    /// The issuer of the provider with which it signs in, if it was made by that.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub issuer: Option<String>,
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

/// Who calls, and from where, as the relay sees it: the answer of `GET /api/v1/me`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CallerSeen {
    /// Who, as in `user "ann"`.
    pub caller: String,
    /// From which address; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, nullable = false))]
    pub address: Option<IpAddr>,
    /// Under which URL the relay is reached.
    pub url: String,
}

/// The body of `POST /api/v1/access/explain`.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Explain {
    /// What is to be done: `publish`, `read`, `work`, `manage` or `admin`.
    pub verb: String,
    /// With which topic, or with what is no topic, as rules name it: `keys/BUCKET/KEY`, `locks/NAME`, `limits/NAME`,
    /// `presence/ROOM/MEMBER`, `series/NAME`; with `*` at its end, with all whose names begin so. Not needed for `admin`,
    /// which is about the relay as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "openapi",
        schema(
            pattern = "^([A-Za-z0-9_-]([A-Za-z0-9_.:-]{0,253}[A-Za-z0-9_-])?|(keys|presence)/[A-Za-z0-9_-]{1,255}/[A-Za-z0-9_-]{1,255}|(locks|limits|series)/[A-Za-z0-9_-]{1,255})$"
        )
    )]
    pub topic: Option<String>,
    /// By whom: a user's name, a token's id, or `anonymous`, or `user:NAME` or `token:ID`, where it could be both;
    /// whoever asks, if absent.
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
    /// Whom it was asked about, as in `user "ann"`.
    pub principal: String,
}

/// The form of `POST /auth/login`, as `application/x-www-form-urlencoded`. `Debug` does not show the password.
#[derive(Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogInForm {
    /// The user's name.
    pub username: String,
    /// The password.
    pub password: String,
    /// `password`, if it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant_type: Option<String>,
    /// Read by nobody here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Read by nobody here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Read by nobody here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<String>,
}

impl fmt::Debug for LogInForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogInForm").field("username", &self.username).finish_non_exhaustive()
    }
}

/// The body of `POST /auth/cookie`, as JSON or as a form. `Debug` does not show the password.
#[derive(Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CookieLogIn {
    /// The name of the user.
    pub username: String,
    /// Its password.
    pub password: String,
}

impl fmt::Debug for CookieLogIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CookieLogIn").field("username", &self.username).finish_non_exhaustive()
    }
}

/// What a browser is told whose cookie keeps a log-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CookieMade {
    /// When it says no longer who calls.
    pub expires_at: Timestamp,
}

/// The tokens of a log-in. `Debug` does not show them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LoggedIn {
    /// What says who calls, as `Authorization: Bearer`, for a short time.
    pub access_token: String,
    /// `bearer`.
    pub token_type: String,
    /// Seconds for which the access token is good.
    pub expires_in: u64,
    /// What the next tokens are given for, once.
    pub refresh_token: String,
    /// The refresh token of a second log-in: for a device that has asked for a pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_token_secondary: Option<String>,
}

impl fmt::Debug for LoggedIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoggedIn").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}

/// The body of `POST /auth/token/refresh`. `Debug` does not show it.
#[derive(Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Refresh {
    /// The refresh token of the log-in.
    pub refresh_token: String,
}

impl fmt::Debug for Refresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refresh").finish_non_exhaustive()
    }
}

/// The body of `POST /auth/token/revoke`. `Debug` does not show the token.
#[derive(Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Revoke {
    /// The refresh token of the log-in that is to end.
    pub refresh_token: String,
    /// Changes nothing: the log-in ends with all its tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoke_chain: Option<bool>,
}

impl fmt::Debug for Revoke {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revoke").field("revoke_chain", &self.revoke_chain).finish_non_exhaustive()
    }
}

/// A user, as clients of pulsar-relay know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Account {
    /// Its name.
    pub user_id: String,
    /// Its name.
    pub username: String,
    /// Where mail reaches it.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub email: Option<String>,
    /// Whether it may come in.
    pub is_active: bool,
    /// When it was made; null of who calls and is no user.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub created_at: Option<Timestamp>,
    /// What its roles let it do: `admin`, `read`, `write`.
    pub permissions: Vec<String>,
    /// The topics that it owns, of the first 10,000 in the order of their names.
    pub owned_topics: Vec<TopicName>,
}

/// The body of `POST /auth/register`. `Debug` does not show the password.
#[derive(Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AccountCreate {
    /// The name: 1 to 128 letters, digits, `_`, `-`, `.` and `@`.
    pub username: String,
    /// The password: 8 characters or more, of at most 1,024 bytes.
    pub password: String,
    /// Where mail reaches it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Some of `admin`, `read` and `write`; none, if absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub permissions: Vec<String>,
}

impl fmt::Debug for AccountCreate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountCreate").field("username", &self.username).finish_non_exhaustive()
    }
}

/// The body of `PATCH /auth/users/{user_id}`: what is absent or null stays as it is. `Debug` does not show the
/// password.
#[derive(Clone, Default, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AccountUpdate {
    /// Where mail reaches it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// A new password: 8 characters or more, of at most 1,024 bytes. It ends the log-ins of the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Some of `admin`, `read` and `write`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Vec<String>>,
    /// Whether it may come in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_active: Option<bool>,
}

impl fmt::Debug for AccountUpdate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { email: _, password: _, permissions, is_active } = self;
        f.debug_struct("AccountUpdate")
            .field("permissions", permissions)
            .field("is_active", is_active)
            .finish_non_exhaustive()
    }
}

/// How many users there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AccountsStats {
    /// All.
    pub total_users: usize,
    /// Those that may come in.
    pub active_users: usize,
}

/// A provider of OpenID Connect with whom users sign in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OidcProvider {
    /// What it is called.
    pub name: String,
    /// The same.
    pub display_name: String,
    /// Where a browser begins.
    pub login_url: String,
}

/// The form of `POST /auth/device/code`.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceForm {
    /// What the device says that it is, for the person who is to let it in; at most 200 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_hint: Option<String>,
    /// `true` for two log-ins that do not depend on each other, one to be handed on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pair: Option<String>,
    /// Read by nobody here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Read by nobody here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
}

/// The codes of a device. `Debug` does not show the long one.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceCodes {
    /// What the device asks with.
    pub device_code: String,
    /// What a person types.
    pub user_code: String,
    /// Where a person types it.
    pub verification_uri: String,
    /// The same, with the code in it.
    pub verification_uri_complete: String,
    /// Seconds for which the codes are good.
    pub expires_in: u64,
    /// Seconds between two questions of the device.
    pub interval: u64,
}

impl fmt::Debug for DeviceCodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceCodes").field("user_code", &self.user_code).finish_non_exhaustive()
    }
}

/// Why a device has no tokens, as OAuth 2.0 writes it (RFC 8628 section 3.5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceRefusal {
    /// `authorization_pending`, `slow_down`, `access_denied`, `expired_token` or `unsupported_grant_type`.
    pub error: String,
    /// What to do.
    pub error_description: String,
    /// What to do, where clients of pulsar-relay look for it.
    pub detail: String,
}

/// The form of `POST /auth/device/token`. `Debug` does not show it.
#[derive(Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceTokenForm {
    /// `urn:ietf:params:oauth:grant-type:device_code`.
    pub grant_type: String,
    /// The device's long code.
    pub device_code: String,
    /// Read by nobody here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
}

impl fmt::Debug for DeviceTokenForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceTokenForm").finish_non_exhaustive()
    }
}
