//! Changes of users, tokens and roles, and what may be known of them, as one caller may do it.
//!
//! Whoever changes something changes what is there now: where somebody else was faster, it is looked at anew. It
//! must not know over which transport it was asked.

use tidemill_proto::{Code, Problem, Timestamp, TopicName};

use super::Verb;
use super::caller::{Caller, Ruling, Who};
use super::directory::{
    Directory, ENTRIES_MAX, Hidden, Maker, NAME_BYTES_MAX, ROLES_MAX, RULES_MAX, Role, Token, User, edit,
};
use super::password::{NewPassword, Passwords};
use super::rule::{Rule, Thing};
use super::service::Access;
use super::token::{NewToken, TokenKind};
use crate::chance::random;
use crate::storage::{AccessEdit, StorageError};
use secrecy::SecretString;
use std::fmt::Write as _;
use std::time::Duration;

/// Longest life of a token that has an end: ten years. Longer ones are mistakes of unit.
pub const TOKEN_LIFE_MAX: Duration = Duration::from_hours(10 * 366 * 24);

/// How often a change is tried while others change something, too.
const TRIES_MAX: usize = 8;

/// Longest address of mail in bytes (RFC 5321 section 4.5.3.1.3).
const EMAIL_BYTES_MAX: usize = 254;

/// What has become of a question or a change that was refused.
#[derive(Debug)]
pub enum Refused {
    /// The caller, or what it wants, is wrong.
    Problem(Box<Problem>),
    /// The storage did not do it.
    Storage(StorageError),
}

impl From<Box<Problem>> for Refused {
    fn from(problem: Box<Problem>) -> Self {
        Self::Problem(problem)
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

/// A token, as it may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenShown {
    /// Its id, which is no secret.
    pub id: String,
    /// What its maker calls it.
    pub name: String,
    /// What it may do, within what its maker may.
    pub rules: Vec<Rule>,
    /// Who made it; `None` if it was made by who has the storage.
    pub maker: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
}

/// A user, as it may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserShown {
    /// Its name.
    pub name: String,
    /// Its roles.
    pub roles: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Where mail reaches it.
    pub email: Option<String>,
    /// Whether it may come in.
    pub is_active: bool,
    /// Whether it can log in with a password.
    pub has_password: bool,
}

/// A role, as it may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleShown {
    /// Its name.
    pub name: String,
    /// Its rules.
    pub rules: Vec<Rule>,
    /// Whether it is there before anybody has written one.
    pub is_ready_made: bool,
}

/// What is new about a user; what is `None` stays as it is.
#[derive(Debug, Default)]
pub struct UserChange {
    /// A new password.
    pub password: Option<SecretString>,
    /// Other roles.
    pub roles: Option<Vec<String>>,
    /// Another address of mail.
    pub email: Option<String>,
    /// Whether it may come in.
    pub is_active: Option<bool>,
}

/// What decides about a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// Whether it is allowed, whoever owns the topic.
    pub allowed: bool,
    /// Which rule decides; `None` where none says anything.
    pub rule: Option<String>,
    /// Whom it was asked about.
    pub principal: String,
}

/// Users, tokens and roles, as one caller may see and change them.
#[derive(Clone, Debug)]
pub struct Administration {
    access: Access,
    caller: Caller,
}

impl Access {
    /// Returns what this caller may see and change of users, tokens and roles, and the only way to do it.
    #[must_use]
    pub fn as_caller(&self, caller: Caller) -> Administration {
        Administration { access: self.clone(), caller }
    }
}

impl Administration {
    /// Makes a token of this caller, which can do no more than the caller can. Returns it with its text, which
    /// nobody is shown again.
    ///
    /// # Errors
    /// The caller can own no token, something about it breaks a rule, there are too many, or the storage did not
    /// do it.
    pub async fn create_token(
        &self,
        name: &str,
        rules: &[String],
        life: Option<Duration>,
    ) -> Result<(TokenShown, SecretString), Refused> {
        let maker = self.maker()?;
        check_name("name", name)?;
        let rules = parse_rules(rules)?;
        if life.is_some_and(|life| life.is_zero() || life > TOKEN_LIFE_MAX) {
            let max = TOKEN_LIFE_MAX.as_secs();
            return Err(Problem::field("expires_in", format_args!("must be 1 to {max} seconds")).into());
        }
        let made = NewToken::make(TokenKind::Token);
        let now = self.access.clock().now();
        let token = Token {
            name: name.to_owned(),
            hash: Hidden(hexadecimal(&made.hash)),
            rules,
            maker,
            created_at: now,
            expires_at: life.map(|life| now.saturating_add(life)),
        };
        let id = made.id.as_str();
        self.change(|directory| {
            check_room(directory)?;
            Ok(vec![edit("token", id, Some(&token))])
        })
        .await?;
        tracing::info!(target: "tidemill::audit", by = %self.caller.who(), token = id, name, "token made");
        Ok((shown_token(id, &token), made.text))
    }

    /// Returns who is the maker of what this caller makes.
    fn maker(&self) -> Result<Option<Maker>, Refused> {
        match self.caller.who() {
            Who::Anyone => Ok(None),
            Who::User(name) => Ok(Some(Maker::User(name.to_string()))),
            Who::Token { id, .. } => Ok(Some(Maker::Token(id.to_string()))),
            Who::Anonymous => Err(self.refused("tokens").into()),
            Who::Subject { .. } => {
                let detail = "a JWT makes no tokens, because its issuer could not revoke them; ask a user of this relay for one";
                Err(Problem::new(Code::Forbidden, detail).into())
            }
        }
    }

    /// Returns the tokens that the caller has made; all, for who may administer the relay.
    ///
    /// # Errors
    /// Nobody says who calls, or the storage did not answer.
    pub async fn tokens(&self) -> Result<Vec<TokenShown>, Refused> {
        let is_admin = self.caller.check_relay(Verb::Admin).is_ok();
        let maker = if is_admin { None } else { self.maker()? };
        let directory = self.directory().await?;
        let own = directory.tokens.iter().filter(|(_, token)| is_admin || token.maker == maker);
        Ok(own.map(|(id, token)| shown_token(id, token)).collect())
    }

    /// Revokes a token: its maker may, who may administer the relay, and whoever shows the token itself.
    ///
    /// # Errors
    /// There is no such token that the caller may revoke, or the storage did not do it.
    pub async fn revoke_token(&self, id: &str) -> Result<(), Refused> {
        let is_admin = self.caller.check_relay(Verb::Admin).is_ok();
        let is_own = matches!(self.caller.who(), Who::Token { id: own, .. } if **own == *id);
        let maker = if is_admin { None } else { self.maker()? };
        self.change(|directory| {
            let token = directory.tokens.get(id);
            if !token.is_some_and(|token| is_admin || is_own || token.maker == maker) {
                return Err(none(
                    "token_id",
                    format_args!("there is no token `{id}` that this caller may revoke"),
                ));
            }
            Ok(vec![edit::<Token>("token", id, None)])
        })
        .await?;
        tracing::info!(target: "tidemill::audit", by = %self.caller.who(), token = id, "token revoked");
        Ok(())
    }

    /// Makes a user.
    ///
    /// # Errors
    /// The caller may not, the user exists, something about it breaks a rule, or the storage did not do it.
    pub async fn create_user(&self, name: &str, change: UserChange) -> Result<UserShown, Refused> {
        self.check_admin()?;
        check_name("name", name)?;
        check_change(&change)?;
        let user = User {
            password: self.hash(change.password).await?,
            roles: change.roles.unwrap_or_default(),
            created_at: self.access.clock().now(),
            email: change.email,
            is_active: change.is_active.unwrap_or(true),
        };
        self.change(|directory| {
            if directory.users.contains_key(name) {
                let detail = format!("there is a user `{name}` already");
                return Err(Problem::new(Code::Conflict, detail).into());
            }
            check_room(directory)?;
            check_roles(directory, &user.roles)?;
            Ok(vec![edit("user", name, Some(&user))])
        })
        .await?;
        tracing::info!(target: "tidemill::audit", by = %self.caller.who(), user = name, roles = ?user.roles, "user made");
        Ok(shown_user(name, &user))
    }

    /// Changes a user.
    ///
    /// # Errors
    /// The caller may not, there is no such user, something about it breaks a rule, nobody would be left to
    /// administer the relay, or the storage did not do it.
    pub async fn change_user(&self, name: &str, change: UserChange) -> Result<UserShown, Refused> {
        self.check_admin()?;
        check_change(&change)?;
        let UserChange { password, roles, email, is_active } = change;
        let password = self.hash(password).await?;
        let mut changed = None;
        self.change(|directory| {
            let mut user = directory.users.get(name).ok_or_else(|| no_user(name))?.clone();
            if let Some(roles) = &roles {
                check_roles(directory, roles)?;
                user.roles.clone_from(roles);
            }
            user.password = password.clone().or(user.password);
            user.email = email.clone().or(user.email);
            user.is_active = is_active.unwrap_or(user.is_active);
            let edits = vec![edit("user", name, Some(&user))];
            check_admins_left(directory, &edits)?;
            changed = Some(user);
            Ok(edits)
        })
        .await?;
        tracing::info!(
            target: "tidemill::audit",
            by = %self.caller.who(), user = name, ?roles, is_active, password = password.is_some(),
            "user changed"
        );
        let changed = changed.expect("a change that is made has a user");
        Ok(shown_user(name, &changed))
    }

    /// Deletes a user, and with it all tokens that it made.
    ///
    /// # Errors
    /// The caller may not, there is no such user, nobody would be left to administer the relay, or the storage
    /// did not do it.
    pub async fn delete_user(&self, name: &str) -> Result<(), Refused> {
        self.check_admin()?;
        self.change(|directory| {
            if !directory.users.contains_key(name) {
                return Err(no_user(name));
            }
            let mut edits = vec![edit::<User>("user", name, None)];
            let maker = Some(Maker::User(name.to_owned()));
            // A user of the same name that comes later must not find them.
            let own = directory.tokens.iter().filter(|(_, token)| token.maker == maker);
            edits.extend(own.map(|(id, _)| edit::<Token>("token", id, None)));
            check_admins_left(directory, &edits)?;
            Ok(edits)
        })
        .await?;
        tracing::info!(target: "tidemill::audit", by = %self.caller.who(), user = name, "user deleted");
        Ok(())
    }

    /// Returns all users.
    ///
    /// # Errors
    /// The caller may not, or the storage did not answer.
    pub async fn users(&self) -> Result<Vec<UserShown>, Refused> {
        self.check_admin()?;
        let directory = self.directory().await?;
        Ok(directory.users.iter().map(|(name, user)| shown_user(name, user)).collect())
    }

    /// Returns all roles.
    ///
    /// # Errors
    /// The caller may not, or the storage did not answer.
    pub async fn roles(&self) -> Result<Vec<RoleShown>, Refused> {
        self.check_admin()?;
        let directory = self.directory().await?;
        Ok(directory.roles.iter().map(|(name, role)| shown_role(name, role)).collect())
    }

    /// Writes the rules of a role, new or not.
    ///
    /// # Errors
    /// The caller may not, something about it breaks a rule, nobody would be left to administer the relay, or the
    /// storage did not do it.
    pub async fn put_role(&self, name: &str, rules: &[String]) -> Result<RoleShown, Refused> {
        self.check_admin()?;
        check_name("role", name)?;
        let role = Role { rules: parse_rules(rules)? };
        self.change(|directory| {
            if !directory.roles.contains_key(name) {
                check_room(directory)?;
            }
            let edits = vec![edit("role", name, Some(&role))];
            check_admins_left(directory, &edits)?;
            Ok(edits)
        })
        .await?;
        tracing::info!(target: "tidemill::audit", by = %self.caller.who(), role = name, rules = ?role.rules, "role written");
        Ok(shown_role(name, &role))
    }

    /// Deletes a role, or the rules that were written for one that is ready-made. Users keep its name, which
    /// means nothing from then on.
    ///
    /// # Errors
    /// The caller may not, there is no such role, nobody would be left to administer the relay, or the storage did
    /// not do it.
    pub async fn delete_role(&self, name: &str) -> Result<(), Refused> {
        self.check_admin()?;
        self.change(|directory| {
            if !directory.roles.contains_key(name) {
                return Err(none("role", format_args!("there is no role `{name}`")));
            }
            let edits = vec![edit::<Role>("role", name, None)];
            check_admins_left(directory, &edits)?;
            Ok(edits)
        })
        .await?;
        tracing::info!(target: "tidemill::audit", by = %self.caller.who(), role = name, "role deleted");
        Ok(())
    }

    /// Says what decides whether somebody may do this with a topic: the caller itself, or for who may administer the
    /// relay a user by its name, a token by its id, or `anonymous`.
    ///
    /// # Errors
    /// The caller may not ask about others, there is no such principal, or the storage did not answer.
    pub async fn explain(
        &self,
        verb: Verb,
        topic: &TopicName,
        principal: Option<&str>,
    ) -> Result<Explained, Refused> {
        let caller = match principal {
            None => self.caller.clone(),
            Some(principal) => {
                self.check_admin()?;
                let directory = self.directory().await?;
                let found = match principal {
                    super::directory::ANONYMOUS => Some(directory.anonymous()),
                    name => directory.user(name).or_else(|| directory.token(name)).cloned(),
                };
                found.ok_or_else(|| {
                    none("principal", format_args!("there is no user of the name `{principal}`, and no token of that id, that is let in"))
                })?
            }
        };
        let thing = if verb == Verb::Admin { Thing::Relay } else { Thing::Topic(topic) };
        let (allowed, rule) = match caller.rule_on(verb, thing) {
            Ruling::Open => (true, None),
            Ruling::Allowed(rule) => (true, Some(rule.to_string())),
            Ruling::Denied(rule) => (false, Some(rule.to_string())),
            Ruling::BeyondMaker(rule) => {
                (false, Some(format!("{rule} (but the maker of the token may not)")))
            }
            Ruling::Unsaid => (false, None),
        };
        Ok(Explained { allowed, rule, principal: caller.who().to_string() })
    }

    fn check_admin(&self) -> Result<(), Box<Problem>> {
        self.caller.check_relay(Verb::Admin)
    }

    fn refused(&self, what: &str) -> Box<Problem> {
        Box::new(Problem::new(Code::Unauthenticated, format!("who says nothing of who calls has no {what}")))
    }

    async fn directory(&self) -> Result<std::sync::Arc<Directory>, Refused> {
        self.access.refreshed().await.map_err(Refused::Storage)
    }

    async fn hash(&self, password: Option<SecretString>) -> Result<Option<Hidden<String>>, Refused> {
        let Some(password) = password else { return Ok(None) };
        let password = NewPassword::parse(password)
            .map_err(|rule| Problem::field("password", rule.to_string().replace("`password` ", "")))?;
        let passwords: &Passwords = self.access.passwords();
        let hash = passwords.hash(&password).await;
        let hash = hash.map_err(|busy| Problem::new(Code::Overloaded, busy.to_string()))?;
        Ok(Some(Hidden(hash)))
    }

    /// Makes the edits that `decide` makes of what is there, and returns once this node knows of them.
    async fn change(
        &self,
        mut decide: impl FnMut(&Directory) -> Result<Vec<AccessEdit>, Refused>,
    ) -> Result<(), Refused> {
        for _ in 0..TRIES_MAX {
            let directory = self.directory().await?;
            let edits = decide(&directory)?;
            let next = random().max(1);
            let changed = self.access.store().change_documents(directory.revision, next, edits).await;
            if changed.map_err(Refused::Storage)? {
                // Whoever is answered finds what was changed, here at least.
                let _ = self.access.refreshed().await;
                return Ok(());
            }
        }
        let detail = "users, tokens or roles are changed by others all the time; try again";
        Err(Problem::new(Code::Overloaded, detail).into())
    }
}

fn shown_token(id: &str, token: &Token) -> TokenShown {
    TokenShown {
        id: id.to_owned(),
        name: token.name.clone(),
        rules: token.rules.clone(),
        maker: token.maker.as_ref().map(|maker| match maker {
            Maker::User(name) => format!("user {name}"),
            Maker::Token(id) => format!("token {id}"),
        }),
        created_at: token.created_at,
        expires_at: token.expires_at,
    }
}

fn shown_user(name: &str, user: &User) -> UserShown {
    UserShown {
        name: name.to_owned(),
        roles: user.roles.clone(),
        created_at: user.created_at,
        email: user.email.clone(),
        is_active: user.is_active,
        has_password: user.password.is_some(),
    }
}

fn shown_role(name: &str, role: &Role) -> RoleShown {
    RoleShown {
        name: name.to_owned(),
        rules: role.rules.clone(),
        is_ready_made: Directory::is_ready_made(name),
    }
}

/// Checks the name of a user, a token or a role: it stands in rules, in logs and in paths.
fn check_name(field: &str, name: &str) -> Result<(), Problem> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'@');
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    let rule = format!("must be 1 to {NAME_BYTES_MAX} letters, digits, `_`, `-`, `.` and `@`");
    Err(Problem::field(field, rule))
}

fn check_change(change: &UserChange) -> Result<(), Problem> {
    if let Some(email) = &change.email
        && (email.len() > EMAIL_BYTES_MAX || !email.contains('@') || email.chars().any(char::is_control))
    {
        return Err(Problem::field(
            "email",
            format_args!("must be an address of mail of at most {EMAIL_BYTES_MAX} bytes"),
        ));
    }
    Ok(())
}

fn check_roles(directory: &Directory, roles: &[String]) -> Result<(), Refused> {
    if roles.len() > ROLES_MAX {
        let rule = format!("has {} roles; a user has at most {ROLES_MAX}", roles.len());
        return Err(Problem::field("roles", rule).into());
    }
    match roles.iter().find(|role| !directory.roles.contains_key(role.as_str())) {
        Some(role) => {
            Err(Problem::field("roles", format_args!("names `{role}`, and there is no such role")).into())
        }
        None => Ok(()),
    }
}

fn parse_rules(rules: &[String]) -> Result<Vec<Rule>, Problem> {
    if rules.len() > RULES_MAX {
        let rule = format!("has {} rules; there may be {RULES_MAX}", rules.len());
        return Err(Problem::field("rules", rule));
    }
    let parse = |(at, text): (usize, &String)| {
        Rule::parse(text).map_err(|error| Problem::field("rules", format_args!("at index {at} {error}")))
    };
    rules.iter().enumerate().map(parse).collect()
}

fn check_room(directory: &Directory) -> Result<(), Refused> {
    if directory.len() < ENTRIES_MAX {
        return Ok(());
    }
    let detail = format!(
        "there are {ENTRIES_MAX} users, tokens and roles, as many as may be; revoke tokens that nobody uses"
    );
    Err(Problem::new(Code::Conflict, detail).into())
}

/// Checks that somebody can administer the relay after these edits, if somebody can now.
fn check_admins_left(directory: &Directory, edits: &[AccessEdit]) -> Result<(), Refused> {
    if !directory.has_admin() || directory.edited(edits).has_admin() {
        return Ok(());
    }
    let detail =
        "nobody would be left who may administer this relay; give somebody else the role `admin` first";
    Err(Problem::new(Code::Conflict, detail).into())
}

fn no_user(name: &str) -> Refused {
    none("name", format_args!("there is no user `{name}`"))
}

fn none(field: &str, detail: std::fmt::Arguments<'_>) -> Refused {
    let mut problem = Problem::new(Code::NotFound, detail.to_string());
    problem.field = Some(field.to_owned());
    problem.into()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
