//! Users: made, changed, deleted; and the first of them, who may make the others.
//!
//! It must not know how a user logs in.

use secrecy::SecretString;
use tidemill_proto::access::{UserInfo, UserUpdate};
use tidemill_proto::{Code, Problem};

use super::{Administration, Refused, check_name, check_room, none};
use crate::access::caller::Who;
use crate::access::changed;
use crate::access::directory::{ANONYMOUS, Directory};
use crate::access::documents::{Hidden, Maker, USER, User, edit, without_token};
use crate::access::password::{Busy, NewPassword, PasswordRule, Passwords};
use crate::access::service::wrong_password;
use crate::chance::random;
use crate::storage::AccessEdit;

/// Roles of a user.
const ROLES_MAX: usize = 32;

/// Longest address of mail in bytes (RFC 5321 section 4.5.3.1.3).
const EMAIL_BYTES_MAX: usize = 254;

/// The role of who may administer the relay.
const ADMIN: &str = "admin";

/// Whether there must be a user of the name that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// Be it there or not.
    Either,
    /// It must be new.
    New,
    /// It must be there.
    There,
}

/// What is to become of a user. What is absent stays as it is, and of a new user is empty.
#[derive(Debug, Default)]
pub(super) struct UserChange {
    pub(super) password: Option<String>,
    pub(super) roles: Option<NewRoles>,
    pub(super) email: Option<String>,
    pub(super) is_active: Option<bool>,
}

/// Roles that a user is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NewRoles {
    /// These alone.
    These(Vec<String>),
    /// These in place of those that it has of some, and of others those that it has.
    Of(&'static [&'static str], Vec<String>),
}

impl NewRoles {
    /// Returns the roles of a user who has those of `before`.
    fn after(&self, before: &[String]) -> Vec<String> {
        match self {
            Self::These(roles) => roles.clone(),
            Self::Of(some, roles) => {
                let others = before.iter().filter(|role| !some.contains(&role.as_str()));
                others.chain(roles).cloned().collect()
            }
        }
    }
}

/// Who administers a relay that nobody else may administer.
#[derive(Clone, Debug)]
pub struct FirstAdministrator {
    /// The name.
    pub name: String,
    /// The password.
    pub password: NewPassword,
    /// Where mail reaches it.
    pub email: Option<String>,
}

impl FirstAdministrator {
    /// Checks a name and a password.
    ///
    /// # Errors
    /// One of them breaks a rule.
    pub fn parse(name: &str, password: SecretString) -> Result<Self, Box<Problem>> {
        check_user_name("name", name)?;
        let password = NewPassword::parse(password).map_err(of_password)?;
        Ok(Self { name: name.to_owned(), password, email: None })
    }

    /// Adds an address of mail.
    ///
    /// # Errors
    /// It is none.
    pub fn with_email(self, email: &str) -> Result<Self, Box<Problem>> {
        check_email(email)?;
        Ok(Self { email: Some(email.to_owned()), ..self })
    }
}

impl Administration {
    /// Checks that the caller may change this user, or make it: who may administer the relay, and a user that shows its
    /// password, of which nothing but that.
    ///
    /// # Errors
    /// It may not.
    pub fn check_may_write(&self, name: &str) -> Result<(), Box<Problem>> {
        if self.shows_password_of(name) { Ok(()) } else { self.check_admin() }
    }

    /// Returns whether a user of this name calls, and has shown its password: by a log-in it would not.
    fn shows_password_of(&self, name: &str) -> bool {
        matches!(self.caller.who(), Who::User(own) if **own == *name) && self.caller.log_in().is_none()
    }

    /// Makes a user, or changes one. Returns it, and whether it is new. A new password, and to be no longer active,
    /// ends its log-ins. A user that shows its password can change that.
    ///
    /// # Errors
    /// The caller may not, something about it breaks a rule, nobody would be left to administer the relay, or the
    /// storage did not do it.
    pub async fn put_user(&self, name: &str, update: UserUpdate) -> Result<(UserInfo, bool), Refused> {
        let UserUpdate { password, roles, email, is_active } = update;
        let change = UserChange { password, roles: roles.map(NewRoles::These), email, is_active };
        let (user, is_new) = self.write_user(name, change, Expected::Either).await?;
        Ok((shown(name, &user), is_new))
    }

    pub(super) async fn write_user(
        &self,
        name: &str,
        change: UserChange,
        expected: Expected,
    ) -> Result<(User, bool), Refused> {
        let UserChange { password, roles, email, is_active } = change;
        let is_password_alone =
            password.is_some() && roles.is_none() && email.is_none() && is_active.is_none();
        let is_own = self.shows_password_of(name) && is_password_alone;
        if !is_own {
            self.check_admin()?;
        }
        check_user_name("name", name)?;
        if let Some(email) = &email {
            check_email(email)?;
        }
        let password = match password {
            Some(text) => {
                let password = NewPassword::parse(text.into()).map_err(of_password)?;
                Some(self.hash(&password).await?)
            }
            None => None,
        };
        let now = self.access.clock().now();
        let (user, is_new) = self
            .change(|directory| {
                let before = directory.users.get(name);
                // Whoever has the name since is somebody else.
                let is_it = |user: &User| self.caller.owner() == Some(&*user.owner(name));
                if is_own && !before.is_some_and(is_it) {
                    return Err(wrong_password().into());
                }
                match (before, expected) {
                    (None, Expected::There) => return Err(no_user(name).into()),
                    (None, Expected::Either | Expected::New) => check_room(directory)?,
                    (Some(_), Expected::New) => {
                        let detail = format!("there is a user `{name}` already; choose another name");
                        return Err(Problem::new(Code::Conflict, detail).into());
                    }
                    (Some(_), Expected::Either | Expected::There) => {}
                }
                let mut user = before.cloned().unwrap_or_else(|| User::new(now));
                if let Some(roles) = &roles {
                    user.roles = roles.after(&user.roles);
                    check_roles(directory, &user.roles)?;
                }
                user.password = password.clone().or(user.password);
                user.email = email.clone().or(user.email);
                user.is_active = is_active.unwrap_or(user.is_active);
                if password.is_some() || !user.is_active {
                    user.series = random();
                }
                let edits = vec![edit(USER, name, Some(&user))];
                self.check_admins_left(directory, &edits)?;
                Ok((edits, (user, before.is_none())))
            })
            .await?;
        changed!(
            self.caller.who(),
            self.origin,
            "user written",
            user = name,
            is_new,
            roles = roles.is_some().then(|| user.roles.join(", ")),
            is_active,
            password = password.is_some()
        );
        Ok((user, is_new))
    }

    /// Returns a user, to who may administer the relay, and to itself.
    ///
    /// # Errors
    /// The caller may not ask, there is no such user, or the storage did not answer.
    pub async fn user(&self, name: &str) -> Result<UserInfo, Refused> {
        if !matches!(self.caller.who(), Who::User(own) if **own == *name) {
            self.check_admin()?;
        }
        let directory = self.directory().await?;
        let user = directory.users.get(name).ok_or_else(|| no_user(name))?;
        Ok(shown(name, user))
    }

    /// Returns all users, in the order of their names.
    ///
    /// # Errors
    /// The caller may not, or the storage did not answer.
    pub async fn users(&self) -> Result<Vec<UserInfo>, Refused> {
        self.check_admin()?;
        let directory = self.directory().await?;
        Ok(directory.users.iter().map(|(name, user)| shown(name, user)).collect())
    }

    /// Deletes a user, and with it all tokens that it made, and those that they made. Its log-ins are over.
    ///
    /// # Errors
    /// The caller may not, there is no such user, nobody would be left to administer the relay, or the storage
    /// did not do it.
    pub async fn delete_user(&self, name: &str) -> Result<(), Refused> {
        self.check_admin()?;
        self.change(|directory| {
            if !directory.users.contains_key(name) {
                return Err(no_user(name).into());
            }
            let mut edits = vec![edit::<User>(USER, name, None)];
            // A user of the same name that comes later must not find them.
            let own = directory.made_by(Maker::User(name.to_owned()));
            edits.extend(own.iter().map(|id| without_token(id)));
            self.check_admins_left(directory, &edits)?;
            Ok((edits, ()))
        })
        .await?;
        changed!(self.caller.who(), self.origin, "user deleted", user = name);
        Ok(())
    }

    /// Makes the first administrator, if nobody may administer the relay yet. Returns whether it was made.
    ///
    /// # Errors
    /// The caller may not, the relay is busy, a user has that name and may not administer, or the storage did
    /// not do it.
    pub async fn make_first(&self, first: &FirstAdministrator) -> Result<bool, Refused> {
        self.check_admin()?;
        let (name, now) = (&*first.name, self.access.clock().now());
        let is_wanted = |directory: &Directory| {
            if directory.has_admin(now) {
                return Ok(false);
            }
            if !directory.users.contains_key(name) {
                return Ok(true);
            }
            let detail = format!(
                "nobody may administer the relay, and the user `{name}` is there already, without that right; name another for the first administrator"
            );
            Err(Refused::from(Problem::new(Code::Conflict, detail)))
        };
        if !is_wanted(&*self.directory().await?)? {
            return Ok(false);
        }
        let password = Some(hidden(Passwords::hash_at_once(&first.password).await)?);
        let (roles, email) = (vec![ADMIN.to_owned()], first.email.clone());
        let user = User { password, roles, email, ..User::new(now) };
        let is_made = self
            .change(|directory| {
                // Another node may have been faster.
                let is_wanted = is_wanted(directory)?;
                let edits = is_wanted.then(|| edit(USER, name, Some(&user)));
                Ok((edits.into_iter().collect(), is_wanted))
            })
            .await?;
        if is_made {
            changed!("the settings", self.origin, "first administrator made", user = name);
        }
        Ok(is_made)
    }

    async fn hash(&self, password: &NewPassword) -> Result<Hidden<String>, Box<Problem>> {
        hidden(self.access.passwords().hash(password).await)
    }

    /// Checks that somebody can administer the relay after these edits, if somebody can now.
    pub(super) fn check_admins_left(
        &self,
        directory: &Directory,
        edits: &[AccessEdit],
    ) -> Result<(), Box<Problem>> {
        let now = self.access.clock().now();
        if !directory.has_admin(now) || directory.edited(edits).has_admin(now) {
            return Ok(());
        }
        let detail =
            "nobody would be left who may administer this relay; give somebody else the role `admin` first";
        Err(Problem::new(Code::Conflict, detail).into())
    }
}

fn shown(name: &str, user: &User) -> UserInfo {
    UserInfo {
        name: name.to_owned(),
        roles: user.roles.clone(),
        email: user.email.clone(),
        is_active: user.is_active,
        has_password: user.password.is_some(),
        issuer: user.identity.as_ref().map(|identity| identity.issuer.clone()),
        created_at: user.created_at,
    }
}

pub(super) fn check_user_name(field: &str, name: &str) -> Result<(), Box<Problem>> {
    if name == ANONYMOUS {
        return Err(Problem::field(
            field,
            "must not be `anonymous`: so is called who does not say who calls",
        )
        .into());
    }
    check_name(field, name)
}

/// Returns a hash as it is kept.
fn hidden(hash: Result<String, Busy>) -> Result<Hidden<String>, Box<Problem>> {
    hash.map(Hidden).map_err(|busy| Box::new(Problem::new(Code::Overloaded, busy.to_string())))
}

fn of_password(rule: PasswordRule) -> Box<Problem> {
    let problem = Problem::new(Code::InvalidField, rule.to_string());
    Box::new(Problem { field: Some("password".to_owned()), ..problem })
}

/// Returns whether a text may be an address of mail.
pub(super) fn is_email(email: &str) -> bool {
    email.len() <= EMAIL_BYTES_MAX && email.contains('@') && !email.chars().any(char::is_control)
}

fn check_email(email: &str) -> Result<(), Box<Problem>> {
    if is_email(email) {
        return Ok(());
    }
    let rule = format_args!("must be an address of mail of at most {EMAIL_BYTES_MAX} bytes");
    Err(Problem::field("email", rule).into())
}

fn check_roles(directory: &Directory, roles: &[String]) -> Result<(), Box<Problem>> {
    if roles.len() > ROLES_MAX {
        let rule = format!("has {} roles; a user has at most {ROLES_MAX}", roles.len());
        return Err(Problem::field("roles", rule).into());
    }
    match roles.iter().find(|role| !directory.roles.contains_key(role.as_str())) {
        Some(role) => {
            let known: Vec<_> = directory.roles.keys().map(|role| format!("`{role}`")).collect();
            let known = known.join(", ");
            Err(Problem::field("roles", format_args!("names `{role}`, which is no role; there are {known}"))
                .into())
        }
        None => Ok(()),
    }
}

pub(super) fn no_user(name: &str) -> Problem {
    none("name", format_args!("there is no user `{name}`"))
}
