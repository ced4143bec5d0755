//! Roles: named lists of rules, some of which are there before anybody has written one.
//!
//! It must not know who has which role.

use tidemill_proto::access::RoleInfo;
use tidemill_proto::{Code, Problem};

use super::{Administration, Refused, check_name, check_room, none, parse_rules, texts_of, told};
use crate::access::changed;
use crate::access::directory::Directory;
use crate::access::documents::{ROLE, Role, User, edit};

impl Administration {
    /// Returns all roles, in the order of their names.
    ///
    /// # Errors
    /// The caller may not, or the storage did not answer.
    pub async fn roles(&self) -> Result<Vec<RoleInfo>, Refused> {
        self.check_admin()?;
        let directory = self.directory().await?;
        Ok(directory.roles.iter().map(|(name, role)| shown(name, role)).collect())
    }

    /// Writes the rules of a role. Returns it, and whether it is new.
    ///
    /// # Errors
    /// The caller may not, something about it breaks a rule, nobody would be left to administer the relay, or the
    /// storage did not do it.
    pub async fn put_role(&self, name: &str, rules: &[String]) -> Result<(RoleInfo, bool), Refused> {
        self.check_admin()?;
        check_name("role", name)?;
        let role = Role { rules: parse_rules(rules)? };
        let is_new = self
            .change(|directory| {
                let is_new = !directory.roles.contains_key(name);
                if is_new {
                    check_room(directory)?;
                }
                let edits = vec![edit(ROLE, name, Some(&role))];
                self.check_admins_left(directory, &edits)?;
                Ok((edits, is_new))
            })
            .await?;
        changed!(self.caller.who(), self.origin, "role written", role = name, rules = told(&role.rules));
        Ok((shown(name, &role), is_new))
    }

    /// Deletes a role that nobody has; one that is ready-made gets back the rules that it had at first.
    ///
    /// # Errors
    /// The caller may not, there is no such role, users have it, nobody would be left to administer the relay, or the
    /// storage did not do it.
    pub async fn delete_role(&self, name: &str) -> Result<(), Refused> {
        self.check_admin()?;
        self.change(|directory| {
            if !directory.roles.contains_key(name) {
                return Err(none("role", format_args!("there is no role `{name}`")).into());
            }
            // Who makes a role of that name anew would not think of those who still have it.
            let has_it = |user: &User| user.roles.iter().any(|role| role == name);
            let mut have_it = directory.users.iter().filter(|(_, user)| has_it(user)).map(|(user, _)| user);
            if let Some(user) = have_it.next().filter(|_| !Directory::is_ready_made(name)) {
                let others = have_it.count();
                let and_others = if others > 0 { format!(" and {others} more") } else { String::new() };
                let detail =
                    format!("user `{user}`{and_others} has the role `{name}`; give other roles first");
                return Err(Problem::new(Code::Conflict, detail).into());
            }
            let edits = vec![edit::<Role>(ROLE, name, None)];
            self.check_admins_left(directory, &edits)?;
            Ok((edits, ()))
        })
        .await?;
        changed!(self.caller.who(), self.origin, "role deleted", role = name);
        Ok(())
    }
}

fn shown(name: &str, role: &Role) -> RoleInfo {
    RoleInfo {
        role: name.to_owned(),
        rules: texts_of(&role.rules),
        is_ready_made: Directory::is_ready_made(name),
    }
}
