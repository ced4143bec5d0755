//! Tokens of the relay: made, listed, revoked.
//!
//! It must not know how a token is checked.

use std::time::Duration;

use secrecy::ExposeSecret as _;
use tidemill_proto::access::{LIFE_SECONDS_MAX, TokenCreate, TokenCreated, TokenInfo};
use tidemill_proto::{Code, Problem, Timestamp};

use super::{
    Administration, Refused, check_name, check_room, none, parse_rules, rules_within, texts_of, told,
};
use crate::access::caller::{Caller, Who};
use crate::access::directory::{Directory, MAKERS_MAX};
use crate::access::documents::{Maker, TOKEN, Token, TokenHash, edit, without_token};
use crate::access::rule::Rules;
use crate::access::token::{NewToken, TokenKind};
use crate::access::{Verb, changed};

/// Tokens that a maker who may not administer the relay has made, by itself and by them, so that it leaves room for
/// others.
const TOKENS_PER_MAKER_MAX: usize = 1_000;

/// How long a token that has expired is still shown, before a new one takes its room.
const EXPIRED_KEPT: Duration = Duration::from_hours(7 * 24);

impl Administration {
    /// Makes a token of this caller, which can do no more than the caller can. Returns it with its text, which
    /// nobody is shown again.
    ///
    /// # Errors
    /// The caller can own no token, something about it breaks a rule, there are too many, or the storage did not
    /// do it.
    pub async fn create_token(&self, wanted: &TokenCreate) -> Result<TokenCreated, Refused> {
        let maker = self.maker()?;
        let name = &wanted.name;
        check_name("name", name)?;
        let rules = parse_rules(&wanted.rules)?;
        let life = wanted.expires_in;
        if life.is_some_and(|seconds| !(1..=LIFE_SECONDS_MAX).contains(&seconds)) {
            let rule = format_args!("must be a whole number of seconds from 1 to {LIFE_SECONDS_MAX}");
            return Err(Problem::field("expires_in", rule).into());
        }
        if self.caller.chain().count() > MAKERS_MAX {
            let detail =
                "this token was made by a token of a token, and may make no more; ask a user for one";
            return Err(Problem::new(Code::Forbidden, detail).into());
        }
        let made = NewToken::make(TokenKind::Token);
        let (id, now) = (made.id.as_str(), self.access.clock().now());
        let token = Token {
            name: name.clone(),
            hash: TokenHash::of(&made.hash),
            rules,
            maker,
            created_at: now,
            expires_at: life.map(|seconds| now.saturating_add(Duration::from_secs(seconds))),
        };
        self.change(|directory| {
            self.check_room_for(directory)?;
            let mut edits = vec![edit(TOKEN, id, Some(&token))];
            let is_past =
                |token: &Token| token.expires_at.is_some_and(|at| at.saturating_add(EXPIRED_KEPT) <= now);
            let past = directory.tokens.iter().filter(|(_, token)| is_past(token));
            edits.extend(past.map(|(id, _)| without_token(id)));
            Ok((edits, ()))
        })
        .await?;
        changed!(self.caller.who(), self.origin, "token made", token = id, name, rules = told(&token.rules));
        let beyond = Rules::of(&token.rules, name).beyond(&rules_within(&self.caller));
        let (token, info) = (made.text.expose_secret().to_owned(), shown(id, &token, None));
        Ok(TokenCreated { token, info, beyond_maker: texts_of(&beyond) })
    }

    fn check_room_for(&self, directory: &Directory) -> Result<(), Box<Problem>> {
        check_room(directory)?;
        // With tokens of tokens it is counted as the first that may not administer the relay.
        let is_bounded = |caller: &&Caller| caller.check_relay(Verb::Admin).is_err();
        let Some(first) = self.caller.chain().take_while(is_bounded).last() else { return Ok(()) };
        let count = maker_of(first)?.map_or(0, |maker| directory.made_by(maker).len());
        if count < TOKENS_PER_MAKER_MAX {
            return Ok(());
        }
        let detail = format!(
            "{} has made {TOKENS_PER_MAKER_MAX} tokens, by itself and by them, as many as may be; revoke some",
            first.who()
        );
        Err(Problem::new(Code::Conflict, detail).into())
    }

    /// Returns who is the maker of what this caller makes.
    fn maker(&self) -> Result<Option<Maker>, Box<Problem>> {
        maker_of(&self.caller)
    }

    /// Returns the tokens that the caller has made; all, for who may administer the relay.
    ///
    /// # Errors
    /// Nobody says who calls, or the storage did not answer.
    pub async fn tokens(&self) -> Result<Vec<TokenInfo>, Refused> {
        let maker = if self.is_admin() { None } else { self.maker()? };
        let held = self.access.refreshed().await.map_err(Refused::Read)?;
        let own = held.directory.tokens.iter().filter(|(_, token)| self.is_admin() || token.maker == maker);
        Ok(own.map(|(id, token)| shown(id, token, held.last_use(id))).collect())
    }

    /// Revokes a token, and all that were made by it: its maker may, who may administer the relay, and whoever
    /// shows the token itself.
    ///
    /// # Errors
    /// There is no such token that the caller may revoke, or the storage did not do it.
    pub async fn revoke_token(&self, id: &str) -> Result<(), Refused> {
        let is_own = matches!(self.caller.who(), Who::Token { id: own, .. } if **own == *id);
        let maker = if self.is_admin() { None } else { self.maker()? };
        let may = |token: &Token| self.is_admin() || is_own || token.maker == maker;
        self.change(|directory| {
            if !directory.tokens.get(id).is_some_and(may) {
                let detail = format_args!("there is no token `{id}` that this caller may revoke");
                return Err(none("token_id", detail).into());
            }
            let below = directory.made_by(Maker::Token(id.to_owned()));
            let ids = below.iter().map(|id| &**id).chain([id]);
            Ok((ids.map(without_token).collect(), ()))
        })
        .await?;
        changed!(self.caller.who(), self.origin, "token revoked", token = id);
        Ok(())
    }
}

fn maker_of(caller: &Caller) -> Result<Option<Maker>, Box<Problem>> {
    match caller.who() {
        Who::Anyone => Ok(None),
        Who::User(name) => Ok(Some(Maker::User(name.to_string()))),
        Who::Token { id, .. } => Ok(Some(Maker::Token(id.to_string()))),
        Who::Anonymous => {
            let detail = "who says nothing of who calls has no tokens; send `Authorization: Bearer` with a token, or `Basic` with a user's name and password";
            Err(Problem::new(Code::Unauthenticated, detail).into())
        }
        Who::Ticket { .. } => Err(Problem::new(Code::Forbidden, "a ticket makes no tokens").into()),
        Who::Subject { .. } => {
            let detail = "a JWT makes no tokens, because its issuer could not revoke them; ask a user of this relay for one";
            Err(Problem::new(Code::Forbidden, detail).into())
        }
    }
}

fn shown(id: &str, token: &Token, last_used_at: Option<Timestamp>) -> TokenInfo {
    TokenInfo {
        token_id: id.to_owned(),
        name: token.name.clone(),
        rules: texts_of(&token.rules),
        maker: token.maker.as_ref().map(|maker| match maker {
            Maker::User(name) => format!("user {name}"),
            Maker::Token(id) => format!("token {id}"),
        }),
        created_at: token.created_at,
        expires_at: token.expires_at,
        last_used_at,
    }
}
