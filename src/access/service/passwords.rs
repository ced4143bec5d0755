//! Users who show a name and a password: what they are compared with, and who they are then.
//!
//! It must not know how a password is hashed.

use secrecy::SecretString;
use tidemill_proto::{Code, Problem};

use super::{Access, unauthenticated};
use crate::access::caller::Caller;
use crate::access::options::Mode;
use crate::access::password::{PasswordOptions, Passwords, VerifyError};

impl Access {
    /// Tells which user calls, by its name and password. It takes as long whether or not there is such a user. Where
    /// everybody is let in, they are not looked at.
    ///
    /// # Errors
    /// They are wrong: `unauthenticated`; it cannot be found out now: `storage_unavailable`, `overloaded`.
    pub async fn by_password(&self, name: &str, password: &SecretString) -> Result<Caller, Box<Problem>> {
        if self.0.mode == Mode::Open {
            return Ok(Caller::anyone());
        }
        // Another node may have made the user a moment ago. Where the storage does not tell, nobody has.
        let _ = self.catch_up().await;
        let series = self.check_password(name, password).await?;
        // As it is now: it may have changed while the password was checked, or be somebody else.
        let directory = self.held().directory.clone();
        let is_it = directory.users.get(name).is_some_and(|user| user.series == series);
        directory.user(name).filter(|_| is_it).cloned().ok_or_else(wrong_password)
    }

    /// Checks a user's name and password, and returns the series of the user whose password was checked.
    pub(in crate::access) async fn check_password(
        &self,
        name: &str,
        password: &SecretString,
    ) -> Result<u64, Box<Problem>> {
        self.check_fresh()?;
        let directory = self.held().directory.clone();
        let user = directory.users.get(name).filter(|user| user.is_active);
        let stored = user.and_then(|user| user.password.as_ref());
        match self.passwords().verify(stored.map(|hash| hash.0.as_str()), password).await {
            Ok(true) => user.map(|user| user.series).ok_or_else(wrong_password),
            Ok(false) => Err(wrong_password()),
            Err(VerifyError::Busy(busy)) => Err(Box::new(Problem::new(Code::Overloaded, busy.to_string()))),
            Err(error @ VerifyError::Stored(_)) => {
                tracing::error!(user = name, %error, "a user cannot log in");
                Err(wrong_password())
            }
        }
    }

    pub(in crate::access) fn passwords(&self) -> &Passwords {
        let make = || Passwords::new(PasswordOptions::default(), self.0.tracker.clone());
        self.0.passwords.get_or_init(make)
    }
}

/// Returns the problem of a name and a password of which one is wrong, and nobody is told which.
pub(in crate::access) fn wrong_password() -> Box<Problem> {
    unauthenticated("the user's name or its password is wrong".to_owned())
}
