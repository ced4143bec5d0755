//! Accounts: users, as pulsar-relay's clients know them, with permissions in place of roles.
//!
//! A permission is told from what its user's rules allow, and given as the role of its name. It must not know who
//! owns which topic.

use tidemill_proto::access::{Account, AccountCreate, AccountUpdate, AccountsStats};
use tidemill_proto::{Code, Problem};

use super::users::{Expected, NewRoles, UserChange, check_user_name};
use super::{Administration, Refused, rules_within};
use crate::access::Verb;
use crate::access::caller::Who;
use crate::access::directory::Directory;
use crate::access::documents::User;
use crate::access::rule::{Decision, Rules, Thing};

/// The permissions that there are: each is the name of a role.
const PERMISSIONS: [&str; 3] = ["admin", "read", "write"];

impl Administration {
    /// Returns the account of the caller. Who is no user has none of the things that users have.
    ///
    /// # Errors
    /// Nobody says who calls, or the storage did not answer.
    pub async fn own_account(&self) -> Result<Account, Refused> {
        self.check_said()?;
        let who = self.caller.who();
        let directory = self.directory().await?;
        let (name, created_at) = match who {
            Who::User(name) => {
                let user = directory.users.get(name).ok_or_else(|| {
                    Problem::new(Code::Unauthenticated, format!("there is no user `{name}` any more"))
                })?;
                return Ok(shown(&directory, name, user));
            }
            Who::Token { id, .. } => (&**id, directory.tokens.get(id).map(|token| token.created_at)),
            Who::Anyone => ("anyone", None),
            Who::Anonymous => ("anonymous", None),
            Who::Ticket { id, .. } => (&**id, None),
            Who::Subject { subject, .. } => (&**subject, None),
        };
        let mut rules = rules_within(&self.caller);
        if matches!(who, Who::Ticket { .. }) {
            // What its maker may because it owns the topic, it may too.
            rules.truncate(1);
        }
        let may_with_some = |verb| Rules::let_some_topic(&rules, verb);
        let may = [self.is_admin(), may_with_some(Verb::Read), may_with_some(Verb::Publish)];
        Ok(Account {
            user_id: name.to_owned(),
            username: if matches!(who, Who::Token { .. }) { who.name() } else { name }.to_owned(),
            email: None,
            is_active: true,
            created_at,
            permissions: permissions(may),
            owned_topics: Vec::new(),
        })
    }

    /// Returns all accounts, in the order of their names, each with as whom it owns topics.
    ///
    /// # Errors
    /// The caller may not, or the storage did not answer.
    pub async fn accounts(&self) -> Result<Vec<(Account, Box<str>)>, Refused> {
        self.check_admin()?;
        let directory = self.directory().await?;
        let users = directory.users.iter();
        Ok(users.map(|(name, user)| (shown(&directory, name, user), user.owner(name))).collect())
    }

    /// Counts accounts.
    ///
    /// # Errors
    /// The caller may not, or the storage did not answer.
    pub async fn accounts_stats(&self) -> Result<AccountsStats, Refused> {
        self.check_admin()?;
        let directory = self.directory().await?;
        let count = |is: fn(&User) -> bool| directory.users.values().filter(|user| is(user)).count();
        let (total, active) = (directory.users.len(), count(|user| user.is_active));
        Ok(AccountsStats { total_users: total, active_users: active })
    }

    /// Makes an account.
    ///
    /// # Errors
    /// The caller may not, something about it breaks a rule, there is one of that name, or the storage did not do
    /// it.
    pub async fn register(&self, wanted: AccountCreate) -> Result<Account, Refused> {
        self.check_admin()?;
        check_user_name("username", &wanted.username)?;
        check_permissions(&wanted.permissions)?;
        let change = UserChange {
            password: Some(wanted.password),
            roles: Some(NewRoles::These(wanted.permissions)),
            email: wanted.email,
            is_active: None,
        };
        self.write_account(&wanted.username, change, Expected::New).await
    }

    /// Changes an account. Roles that are no permissions stay as they are.
    ///
    /// # Errors
    /// The caller may not, something about it breaks a rule, there is no such account, nobody would be left to
    /// administer the relay, or the storage did not do it.
    pub async fn update_account(&self, name: &str, wanted: AccountUpdate) -> Result<Account, Refused> {
        self.check_admin()?;
        let AccountUpdate { email, password, permissions, is_active } = wanted;
        if let Some(permissions) = &permissions {
            check_permissions(permissions)?;
        }
        let roles = permissions.map(|permissions| NewRoles::Of(&PERMISSIONS, permissions));
        let change = UserChange { password, roles, email, is_active };
        self.write_account(name, change, Expected::There).await
    }

    /// Deletes an account, but not the caller's own.
    ///
    /// # Errors
    /// As those of [`delete_user`](Self::delete_user), and it is the caller's own.
    pub async fn delete_account(&self, name: &str) -> Result<(), Refused> {
        self.check_admin()?;
        if self.caller.who().user() == Some(name) {
            return Err(Problem::field("user_id", "is your own; let another administrator delete it").into());
        }
        self.delete_user(name).await
    }

    async fn write_account(
        &self,
        name: &str,
        change: UserChange,
        expected: Expected,
    ) -> Result<Account, Refused> {
        let (user, _) = self.write_user(name, change, expected).await?;
        let directory = self.directory().await?;
        Ok(shown(&directory, name, &user))
    }
}

fn shown(directory: &Directory, name: &str, user: &User) -> Account {
    let rules = directory.rules_of(name, user);
    Account {
        user_id: name.to_owned(),
        username: name.to_owned(),
        email: user.email.clone(),
        is_active: user.is_active,
        created_at: Some(user.created_at),
        permissions: permissions([
            is_admin(&rules),
            Rules::let_some_topic(&[&rules], Verb::Read),
            Rules::let_some_topic(&[&rules], Verb::Publish),
        ]),
        owned_topics: Vec::new(),
    }
}

fn is_admin(rules: &Rules) -> bool {
    match rules.decide(Verb::Admin, Thing::Relay) {
        Decision::Allowed(_) => true,
        Decision::Denied(_) | Decision::Unsaid => false,
    }
}

/// Returns the names of those permissions that somebody has.
fn permissions(has: [bool; PERMISSIONS.len()]) -> Vec<String> {
    let named = PERMISSIONS.into_iter().zip(has).filter(|(_, has)| *has);
    named.map(|(name, _)| name.to_owned()).collect()
}

fn check_permissions(permissions: &[String]) -> Result<(), Box<Problem>> {
    let is_known = |name: &String| PERMISSIONS.contains(&name.as_str());
    if permissions.iter().all(is_known) && permissions.len() <= PERMISSIONS.len() {
        return Ok(());
    }
    Err(Problem::field("permissions", "must be a list of `admin`, `read` and `write`, each at most once")
        .into())
}
