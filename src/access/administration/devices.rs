//! Devices: programs without a keyboard or a browser that want a log-in, and whom a user lets in elsewhere
//! (RFC 8628).
//!
//! A device gets two codes. The long one it keeps, and asks with it until somebody has decided; the short one a
//! person types in a browser, beside a name and a password. Both are kept as hashes, for ten minutes, and are good
//! once. It must not know what the page looks like, nor over which transport a device asks.

use std::net::IpAddr;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use tidemill_proto::access::LoggedIn;
use tidemill_proto::{Code, Problem, Timestamp};
use tokio::time::timeout;

use super::log_ins::Pair;
use super::room::{Begun, make_room};
use super::{CHANGE_WAIT_MAX, Refused};
use crate::access::audit::{Origin, changed};
use crate::access::caller::Who;
use crate::access::documents::{DEVICE, Decision, Device, TokenHash, new_record, put_record, without_record};
use crate::access::entropy::secret_bytes;
use crate::access::records::{Kept, Records};
use crate::access::service::{Access, wrong_password};
use crate::access::token::{NewToken, TokenId, TokenKind, TokenText};
use crate::storage::{Expected, RecordEdit};

/// How long a person has to decide.
const CODES_LIFE: Duration = Duration::from_mins(10);

/// How long a device waits between two questions.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// How soon a device may ask again: its clock and the network are not exact.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(4);

const _: () =
    assert!(ASK_AGAIN_AFTER.as_secs() < ASK_EVERY.as_secs(), "whoever waits as told is not too early");

/// Devices that wait at one time: whoever reaches the port can ask for codes, and each is a record. Nodes that
/// give codes at one moment may be one device each beyond it. Who decides about one and then does not fetch its
/// tokens keeps its place.
const DEVICES_MAX: usize = 200;

/// The letters of a short code: no vowels, so that no words come of them (RFC 8628 section 6.1).
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

/// Letters of a short code: 34 bits, each guess at which costs a name and a password.
const LETTERS_COUNT: usize = 8;

/// Longest text in which a device says what it is, in characters.
const HINT_CHARS_MAX: usize = 200;

/// What a device is told that asks for its tokens.
#[derive(Debug)]
pub enum DeviceAnswer {
    /// Nobody has decided.
    Pending,
    /// Nobody has decided, and it asks too often.
    TooSoon,
    /// A user has let it in.
    Tokens(LoggedIn),
    /// A user has refused it.
    Denied,
    /// The codes are too old, used, or none.
    Expired,
}

/// What a device is given to begin with. `Debug` does not show the long code.
#[derive(Debug)]
pub struct NewDevice {
    /// What it asks with.
    pub device_code: SecretString,
    /// What a person types: `BCDF-GHJK`.
    pub user_code: String,
    /// How long both are good.
    pub life: Duration,
    /// How long it is to wait between two questions.
    pub ask_every: Duration,
}

/// A device that waits, as the person who decides is shown it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingDevice {
    /// The short code, as it is shown: `BCDF-GHJK`.
    pub user_code: String,
    /// What it says that it is.
    pub hint: Option<String>,
}

/// A short code, as somebody typed it: its letters alone, in capitals.
fn read_user_code(text: &str) -> Option<String> {
    // A longer text is no code, whatever stands in it.
    if text.len() > 4 * LETTERS_COUNT {
        return None;
    }
    let letters: String = text.chars().filter(|letter| !matches!(letter, '-' | ' ')).collect();
    let letters = letters.to_ascii_uppercase();
    let is_one = letters.len() == LETTERS_COUNT && letters.bytes().all(|letter| LETTERS.contains(&letter));
    is_one.then_some(letters)
}

fn shown(letters: &str) -> String {
    let (one, other) = letters.split_at(LETTERS_COUNT / 2);
    format!("{one}-{other}")
}

fn hash_of(letters: &str) -> TokenHash {
    TokenHash::of(&Sha256::digest(letters.as_bytes()).into())
}

/// Returns letters, each chosen evenly among all.
fn new_user_code() -> String {
    let fair = 256 / LETTERS.len() * LETTERS.len();
    let thrown = std::iter::repeat_with(secret_bytes::<LETTERS_COUNT>).flatten().map(usize::from);
    let fair = thrown.filter(|byte| *byte < fair);
    fair.take(LETTERS_COUNT).map(|byte| char::from(LETTERS[byte % LETTERS.len()])).collect()
}

/// Returns the edit that deletes a device, if it is what it was taken for.
fn without(id: TokenId, device: &Kept<Device>) -> RecordEdit {
    RecordEdit { expected: Expected::This(device.bytes.clone()), ..without_record(DEVICE, id.as_str()) }
}

/// Returns the device of a short code that waits for somebody to decide.
fn waiting<'a>(records: &'a Records, letters: &str, now: Timestamp) -> Option<(TokenId, &'a Kept<Device>)> {
    let hash = hash_of(letters);
    let is_it =
        |device: &Device| device.user_code == hash && device.expires_at > now && device.decision.is_none();
    records.devices.iter().find(|(_, device)| is_it(&device.it)).map(|(id, device)| (*id, &**device))
}

fn too_many() -> Refused {
    Problem::new(Code::Overloaded, "too many devices ask for codes at once; ask again").into()
}

fn begun(id: TokenId, device: &Device) -> Begun<TokenId> {
    Begun { id, from: device.from, expires_at: device.expires_at }
}

fn no_code() -> Box<Problem> {
    let rule = "is none that waits: it is mistyped, has expired, or was used; let the device ask for another";
    Box::new(Problem::field("user_code", rule))
}

impl Access {
    /// Gives a device its codes that asks from this address. Where everybody is let in, nothing is kept of it.
    ///
    /// # Errors
    /// What it says of itself is too long, too many devices wait (`overloaded`), or the storage did not do it.
    pub async fn begin_device(
        &self,
        hint: Option<&str>,
        pair: bool,
        from: Option<IpAddr>,
    ) -> Result<NewDevice, Refused> {
        let (code, letters, now) = (NewToken::make(TokenKind::Device), new_user_code(), self.clock().now());
        if hint.is_some_and(|hint| hint.chars().nth(HINT_CHARS_MAX).is_some()) {
            let rule = format!("has more than {HINT_CHARS_MAX} characters; say less");
            return Err(Problem::field("client_hint", rule).into());
        }
        let given = NewDevice {
            device_code: code.text.clone(),
            user_code: shown(&letters),
            life: CODES_LIFE,
            ask_every: ASK_EVERY,
        };
        if self.is_open() {
            return Ok(given);
        }
        let device = Device {
            code: TokenHash::of(&code.hash),
            user_code: hash_of(&letters),
            hint: hint.map(str::to_owned),
            pair,
            from,
            expires_at: now.saturating_add(CODES_LIFE),
            decision: None,
        };
        let alone = timeout(CHANGE_WAIT_MAX, self.begin_alone()).await;
        let _alone = alone.map_err(|_| too_many())?;
        self.catch_up().await.map_err(Refused::Read)?;
        self.change_records(|held| {
            let devices = &held.records.devices;
            // Who was refused need not be told, where there is no room.
            let is_full = devices.len() >= DEVICES_MAX;
            let is_over = |device: &Device| {
                device.expires_at <= now || (is_full && device.decision == Some(Decision::Refused))
            };
            let (over, waiting): (Vec<_>, Vec<_>) =
                devices.iter().partition(|(_, device)| is_over(&device.it));
            // Whom a user has let in keeps its place.
            let (decided, undecided): (Vec<_>, Vec<_>) =
                waiting.into_iter().partition(|(_, device)| device.it.decision.is_some());
            let begun: Vec<_> = undecided.iter().map(|(id, device)| begun(**id, &device.it)).collect();
            let most = DEVICES_MAX.saturating_sub(decided.len());
            let gives_way = make_room("devices that wait", most, &begun, from, now)?;
            let gives_way = gives_way.and_then(|id| devices.get_key_value(&id));
            let mut edits: Vec<_> =
                over.into_iter().chain(gives_way).map(|(id, device)| without(*id, device)).collect();
            edits.push(new_record(DEVICE, code.id.as_str(), &device));
            Ok((edits, ()))
        })
        .await?;
        Ok(given)
    }

    /// Returns the device of a short code, for the person who is to decide.
    ///
    /// # Errors
    /// There is none that waits, or the storage did not answer.
    pub async fn waiting_device(&self, user_code: &str) -> Result<WaitingDevice, Refused> {
        let letters = read_user_code(user_code).ok_or_else(no_code)?;
        self.catch_up().await.map_err(Refused::Read)?;
        let held = self.held();
        let (_, device) = waiting(&held.records, &letters, self.clock().now()).ok_or_else(no_code)?;
        Ok(WaitingDevice { user_code: shown(&letters), hint: device.it.hint.clone() })
    }

    /// Lets a device in as a user, or refuses it, for who knows the user's password.
    ///
    /// # Errors
    /// There is no such device that waits, the name or the password is wrong, or the storage did not do it.
    pub async fn decide_device(
        &self,
        user_code: &str,
        name: &str,
        password: &SecretString,
        lets_in: bool,
        origin: &Origin,
    ) -> Result<(), Refused> {
        let letters = read_user_code(user_code).ok_or_else(no_code)?;
        self.catch_up().await.map_err(Refused::Read)?;
        let series = self.check_password(name, password).await?;
        self.note_decision(&letters, (name, series), lets_in, origin).await
    }

    /// Notes what a user of this series has decided about the device of a short code.
    pub(super) async fn note_decision(
        &self,
        user_code: &str,
        (name, series): (&str, u64),
        lets_in: bool,
        origin: &Origin,
    ) -> Result<(), Refused> {
        let letters = read_user_code(user_code).ok_or_else(no_code)?;
        let now = self.clock().now();
        self.change_records(|held| {
            // It may have changed while the password was checked.
            let user = held.directory.users.get(name).filter(|user| user.is_active && user.series == series);
            user.ok_or_else(wrong_password)?;
            let (id, device) = waiting(&held.records, &letters, now).ok_or_else(no_code)?;
            let decision = if lets_in { Decision::LetIn(name.to_owned(), series) } else { Decision::Refused };
            let decided = Device { decision: Some(decision), ..device.it.clone() };
            let edit = put_record(DEVICE, id.as_str(), &decided);
            Ok((vec![RecordEdit { expected: Expected::This(device.bytes.clone()), ..edit }], ()))
        })
        .await?;
        changed!(Who::User(name.into()), origin, "device decided about", lets_in);
        Ok(())
    }

    /// Answers a device that asks for its tokens.
    ///
    /// # Errors
    /// There is no room for a log-in, or the storage did not do it.
    pub async fn device_tokens(&self, device_code: &SecretString) -> Result<DeviceAnswer, Refused> {
        let pairs = [Pair::new(), Pair::new()];
        if self.is_open() {
            return Ok(DeviceAnswer::Tokens(self.answer_to_device(&pairs)));
        }
        let Ok(shown) = TokenText::parse(TokenKind::Device, device_code.expose_secret()) else {
            return Ok(DeviceAnswer::Expired);
        };
        let (id, now) = (shown.id(), self.clock().now());
        let is_too_soon = self.asks_too_soon(id, ASK_AGAIN_AFTER);
        self.catch_up().await.map_err(Refused::Read)?;
        self.change_records(|held| {
            let device = held.records.devices.get(&id);
            let is_its = |device: &Device| device.code.bytes().is_some_and(|hash| shown.matches(&hash));
            let Some(kept) = device.filter(|kept| is_its(&kept.it) && kept.it.expires_at > now) else {
                return Ok((Vec::new(), DeviceAnswer::Expired));
            };
            let (user, series) = match &kept.it.decision {
                None if is_too_soon => return Ok((Vec::new(), DeviceAnswer::TooSoon)),
                None => return Ok((Vec::new(), DeviceAnswer::Pending)),
                Some(Decision::Refused) => return Ok((vec![without(id, kept)], DeviceAnswer::Denied)),
                Some(Decision::LetIn(user, series)) => (user, *series),
            };
            let is_going_on = held.directory.users.get(&**user);
            if !is_going_on.is_some_and(|user| user.is_active && user.series == series) {
                return Ok((vec![without(id, kept)], DeviceAnswer::Denied));
            }
            let pairs = if kept.it.pair { &pairs[..] } else { &pairs[..1] };
            let mut edits = self.enter(&held.records, user, series, pairs, now)?;
            edits.push(without(id, kept));
            Ok((edits, DeviceAnswer::Tokens(self.answer_to_device(pairs))))
        })
        .await
    }

    /// Returns what a device is told of its log-ins, of which there is one, or two.
    fn answer_to_device(&self, pairs: &[Pair]) -> LoggedIn {
        let second = pairs.get(1).map(|pair| pair.refresh.text.expose_secret().to_owned());
        LoggedIn { refresh_token_secondary: second, ..self.answer(&pairs[0]) }
    }
}

#[cfg(test)]
mod tests;
