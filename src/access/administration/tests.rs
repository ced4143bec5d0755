//! Administration in one process, and of two nodes on one storage. It must not know HTTP.

use std::time::Duration;

use tidemill_proto::access::{TokenCreate, UserUpdate};
use tidemill_proto::{Code, Timestamp, TopicName};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::access::{AccessOptions, Mode, Opening, Sessions, Thing, Unknown};
use crate::clock::Clock;
use crate::storage::{Storage, test_storage};

/// A relay's access, with what it stands on.
pub(super) struct Ground {
    pub(super) access: Access,
    pub(super) storage: Storage,
    sessions: Sessions,
    clock: Clock,
    stop: CancellationToken,
}

impl Ground {
    pub(super) fn new() -> Self {
        Self::beside(test_storage())
    }

    /// Starts another node on a storage.
    pub(super) fn beside(storage: Storage) -> Self {
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let sessions = Sessions::new(stop.child_token());
        let clock = Clock::manual(Timestamp::from_millis(1_000_000_000));
        let options = AccessOptions { mode: Mode::Closed, ..AccessOptions::open() };
        let access = Access::start(options, &storage, clock.clone(), sessions.clone(), &tracker, &stop);
        Self { access: access.expect("no issuers"), storage, sessions, clock, stop }
    }

    pub(super) fn advance(&self, by: Duration) {
        self.clock.set(self.clock.now().saturating_add(by));
    }

    /// Returns all that is kept, as text.
    pub(super) async fn kept(&self) -> String {
        let kept = self.storage.access.documents(None).await.expect("an answer").expect("documents");
        let records = self.storage.records.records(None).await.expect("an answer").expect("records");
        format!("{:?} {:?}", kept.documents, records.records)
    }

    /// Returns what somebody may do who has the storage.
    pub(super) fn root(&self) -> Administration {
        self.access.as_caller(Caller::anyone())
    }

    async fn user(&self, name: &str, roles: &[&str]) -> Administration {
        let roles = Some(roles.iter().map(|role| (*role).to_owned()).collect());
        self.root().put_user(name, UserUpdate { roles, ..UserUpdate::default() }).await.expect("a user");
        self.access.as_caller(self.root().principal(Some(name)).await.expect("it is let in"))
    }

    /// Returns whom a text lets in.
    fn by(&self, token: &str) -> Result<Caller, Code> {
        self.access.find(|| Ok(Some(token))).map_err(|unknown| match unknown {
            Unknown::Refused(problem) => problem.code,
            // The storage is asked, and knows no more than this node.
            Unknown::Later => Code::Unauthenticated,
        })
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn wanted(rules: &[&str]) -> TokenCreate {
    TokenCreate {
        name: "t".to_owned(),
        rules: rules.iter().map(|rule| (*rule).to_owned()).collect(),
        expires_in: None,
    }
}

#[track_caller]
fn code<T: std::fmt::Debug>(result: Result<T, Refused>) -> (Code, String) {
    match result {
        Err(Refused::Problem(problem)) => (problem.code, problem.detail),
        other => panic!("{other:?}"),
    }
}

fn may(caller: &Caller, verb: Verb, topic: &str) -> bool {
    caller.check(verb, &TopicName::parse(topic).expect(topic)).is_ok()
}

#[tokio::test]
async fn a_token_is_shown_once_and_does_what_its_rules_and_its_maker_allow() {
    let ground = Ground::new();
    let ann = ground.user("ann", &["read"]).await;
    let made = ann.create_token(&wanted(&["allow read,publish orders.*"])).await.expect("a token");
    assert!(made.token.starts_with(&format!("tm_{}_", made.info.token_id)));
    assert!(!format!("{made:?}").contains(&made.token));
    assert_eq!(made.info.maker.as_deref(), Some("user ann"));
    let caller = ground.by(&made.token).expect("it is let in");
    assert!(may(&caller, Verb::Read, "orders.1") && !may(&caller, Verb::Read, "other"));
    assert!(!may(&caller, Verb::Publish, "orders.1"), "its maker may not");
    let text = ground.kept().await;
    assert!(!text.contains(&made.token) && !text.contains(&made.token[20..]), "only its hash is kept");

    // What the maker loses, its token loses; what the maker gets, within the token's rules, it gets.
    ground.user("ann", &["write"]).await;
    assert!(may(&ground.by(&made.token).expect("still"), Verb::Publish, "orders.1"));
    let session = ground.sessions.open(&ground.by(&made.token).expect("still"), Opening::by_the_node());
    ground.user("ann", &[]).await;
    assert!(!may(&ground.by(&made.token).expect("still"), Verb::Read, "orders.1"));
    assert!(futures_util::FutureExt::now_or_never(session.farewell()).is_some(), "ended");

    ground.root().delete_user("ann").await.expect("deleted");
    assert_eq!(ground.by(&made.token), Err(Code::Unauthenticated), "it goes with its maker");
    ground.user("ann", &["admin"]).await;
    assert_eq!(ground.by(&made.token), Err(Code::Unauthenticated), "and stays away");
}

#[tokio::test]
async fn who_may_revoke_does_and_what_was_made_below_goes_too() {
    let ground = Ground::new();
    let (ann, bob) = (ground.user("ann", &["write"]).await, ground.user("bob", &["write"]).await);
    let made = ann.create_token(&wanted(&["allow read *"])).await.expect("a token");
    let own = ground.access.as_caller(ground.by(&made.token).expect("let in"));
    let below = own.create_token(&wanted(&["allow read *"])).await.expect("a token of a token");
    assert_eq!(below.info.maker, Some(format!("token {}", made.info.token_id)));

    assert_eq!(bob.tokens().await.expect("his"), []);
    assert_eq!(code(bob.revoke_token(&made.info.token_id).await).0, Code::NotFound);
    assert_eq!(own.tokens().await.expect("its").len(), 1);
    assert_eq!(ann.tokens().await.expect("hers").len(), 1);
    let all = ground.root().tokens().await.expect("all");
    assert_eq!(all.len(), 2);
    assert!(all.iter().all(|token| token.rules == ["allow read *"]));

    own.revoke_token(&made.info.token_id).await.expect("a token revokes itself");
    for text in [&made.token, &below.token] {
        assert_eq!(ground.by(text), Err(Code::Unauthenticated));
    }
    assert_eq!(ground.root().tokens().await.expect("all"), []);
    assert_eq!(code(ann.revoke_token("x").await).0, Code::NotFound);
}

#[tokio::test]
async fn makers_of_makers_have_an_end() {
    let ground = Ground::new();
    let mut maker = ground.user("ann", &["read"]).await;
    for depth in 1.. {
        match maker.create_token(&wanted(&["allow read *"])).await {
            Ok(made) => maker = ground.access.as_caller(ground.by(&made.token).expect("what is made works")),
            refused => {
                assert_eq!((code(refused).0, depth), (Code::Forbidden, 5));
                break;
            }
        }
    }
}

#[tokio::test]
async fn tokens_end_and_make_room() {
    let ground = Ground::new();
    let root = ground.root();
    let made = root.create_token(&TokenCreate { expires_in: Some(60), ..wanted(&["allow read *"]) }).await;
    let made = made.expect("a token");
    assert_eq!(made.info.expires_at, Some(made.info.created_at.saturating_add(Duration::from_mins(1))));
    assert!(ground.by(&made.token).is_ok());
    ground.advance(Duration::from_mins(1));
    assert_eq!(ground.by(&made.token), Err(Code::Unauthenticated));
    root.create_token(&wanted(&[])).await.expect("another");
    assert_eq!(root.tokens().await.expect("all").len(), 2, "what has just ended is still shown");
    ground.advance(Duration::from_hours(7 * 24));
    root.create_token(&wanted(&[])).await.expect("another");
    let left = root.tokens().await.expect("all");
    assert!(left.len() == 2 && left.iter().all(|token| token.token_id != made.info.token_id));
}

#[tokio::test]
async fn what_breaks_a_rule_is_named_and_changes_nothing() {
    let ground = Ground::new();
    let root = ground.root();
    let long = "x".repeat(129);
    let many: Vec<_> = (0..101).map(|at| format!("allow read t{at}")).collect();
    for (wanted, field) in [
        (TokenCreate { name: String::new(), ..wanted(&[]) }, "`name` must be"),
        (TokenCreate { name: "a b".to_owned(), ..wanted(&[]) }, "`name` must be"),
        (TokenCreate { name: "..".to_owned(), ..wanted(&[]) }, "`name` must be"),
        (TokenCreate { name: long.clone(), ..wanted(&[]) }, "`name` must be"),
        (wanted(&["allow read a", "allow fly b"]), "`rules` at index 1 has the verb `fly`"),
        (TokenCreate { rules: many, ..wanted(&[]) }, "`rules` has 101 rules"),
        (TokenCreate { expires_in: Some(0), ..wanted(&[]) }, "`expires_in` must be"),
        (TokenCreate { expires_in: Some(u64::MAX), ..wanted(&[]) }, "`expires_in` must be"),
    ] {
        let (code, detail) = code(root.create_token(&wanted).await);
        assert_eq!(code, Code::InvalidField, "{wanted:?}");
        assert!(detail.starts_with(field), "{detail}");
    }
    let user = UserUpdate::default;
    for (name, update, expected) in [
        ("anonymous", user(), "`name` must not"),
        ("a/b", user(), "`name` must be"),
        ("a", UserUpdate { password: Some("short".to_owned()), ..user() }, "`password` has 5 characters"),
        ("a", UserUpdate { roles: Some(vec!["crew".to_owned()]), ..user() }, "`roles` names `crew`"),
        ("a", UserUpdate { roles: Some(vec!["read".to_owned(); 33]), ..user() }, "`roles` has 33"),
        ("a", UserUpdate { email: Some("x".to_owned()), ..user() }, "`email` must be"),
    ] {
        let (code, detail) = code(root.put_user(name, update).await);
        assert_eq!(code, Code::InvalidField, "{detail}");
        assert!(detail.starts_with(expected), "{detail}");
    }
    assert_eq!(code(root.put_role("a b", &[]).await).0, Code::InvalidField);
    for gone in
        [code(root.delete_user("x").await), code(root.user("x").await), code(root.delete_role("x").await)]
    {
        assert_eq!(gone.0, Code::NotFound);
    }
    let documents = ground.storage.access.documents(None).await.expect("an answer").expect("documents");
    assert!(documents.documents.is_empty());
}

#[tokio::test]
async fn who_may_not_administer_changes_nobody() {
    let ground = Ground::new();
    let ann = ground.user("ann", &["write"]).await;
    let anonymous = ground.access.as_caller(ground.access.find(|| Ok(None)).expect("let in"));
    for (who, expected) in [(&ann, Code::Forbidden), (&anonymous, Code::Unauthenticated)] {
        let refusals = [
            code(who.put_user("bob", UserUpdate::default()).await),
            code(
                who.put_user(
                    "ann",
                    UserUpdate { roles: Some(vec!["admin".to_owned()]), ..UserUpdate::default() },
                )
                .await,
            ),
            code(who.delete_user("ann").await),
            code(who.user("bob").await),
            code(who.users().await),
            code(who.roles().await),
            code(who.put_role("write", &["allow admin *".to_owned()]).await),
            code(who.delete_role("write").await),
            code(who.principal(Some("ann")).await),
        ];
        assert!(refusals.iter().all(|(code, _)| *code == expected), "{refusals:?}");
    }
    assert_eq!(ann.user("ann").await.expect("itself").name, "ann");
    assert_eq!(code(anonymous.user("ann").await).0, Code::Unauthenticated);
    assert_eq!(code(anonymous.tokens().await).0, Code::Unauthenticated);
    assert_eq!(code(anonymous.create_token(&wanted(&[])).await).0, Code::Unauthenticated);
}

#[tokio::test]
async fn somebody_is_left_who_may_administer() {
    let ground = Ground::new();
    let root = ground.root();
    ground.user("ann", &["admin"]).await;
    let roles = |roles: &[&str]| UserUpdate {
        roles: Some(roles.iter().map(|role| (*role).to_owned()).collect()),
        ..UserUpdate::default()
    };
    let idle = UserUpdate { is_active: Some(false), ..UserUpdate::default() };
    for refused in [
        code(root.delete_user("ann").await),
        code(root.put_user("ann", roles(&["read"])).await),
        code(root.put_user("ann", idle.clone()).await),
        code(root.put_role("admin", &[]).await),
    ] {
        assert_eq!(refused.0, Code::Conflict, "{}", refused.1);
    }
    ground.user("bob", &["admin"]).await;
    root.put_user("ann", idle).await.expect("bob is left");
    assert_eq!(
        code(root.principal(Some("ann")).await).0,
        Code::InvalidField,
        "who is not active is not let in"
    );
    assert_eq!(code(root.delete_user("bob").await).0, Code::Conflict);
}

#[tokio::test]
async fn roles_are_ready_made_and_can_be_written_anew() {
    let ground = Ground::new();
    let root = ground.root();
    let names = |roles: Vec<tidemill_proto::access::RoleInfo>| {
        roles.into_iter().map(|role| role.role).collect::<Vec<_>>()
    };
    assert_eq!(names(root.roles().await.expect("roles")), ["admin", "anonymous", "read", "write"]);
    let anonymous = || ground.access.find(|| Ok(None)).expect("let in");
    root.roles().await.expect("looked up");
    assert!(!may(&anonymous(), Verb::Read, "public.a"));
    let (role, is_new) =
        root.put_role("anonymous", &["allow  read public.*".to_owned()]).await.expect("written");
    assert_eq!((role.rules, is_new), (vec!["allow read public.*".to_owned()], false));
    assert!(may(&anonymous(), Verb::Read, "public.a") && !may(&anonymous(), Verb::Read, "a"));
    root.delete_role("anonymous").await.expect("back to what it was");
    assert!(!may(&anonymous(), Verb::Read, "public.a"));
    assert!(root.put_role("crew", &["allow publish {name}.*".to_owned()]).await.expect("new").1);
    let ann = ground.user("ann", &["crew"]).await;
    assert_eq!(
        ann.caller().check(Verb::Publish, &TopicName::parse("ann.x").expect("a name")),
        Ok(crate::access::Permit::Granted)
    );
    let (refused, detail) = code(root.delete_role("crew").await);
    assert_eq!(refused, Code::Conflict, "{detail}");
    assert!(detail.contains("`ann`"), "{detail}");
    ground.user("ann", &[]).await;
    root.delete_role("crew").await.expect("nobody has it");
}

#[tokio::test]
async fn what_two_nodes_change_at_once_is_all_there() {
    let one = Ground::new();
    let other = Ground::beside(one.storage.clone());
    let put = |ground: &Ground, name: String| {
        let root = ground.root();
        async move { root.put_user(&name, UserUpdate::default()).await }
    };
    let names: Vec<_> = (0..12).map(|at| format!("u{at}")).collect();
    let puts = names.iter().enumerate().map(|(at, name)| put([&one, &other][at % 2], name.clone()));
    // Some may find others faster too often, and say so.
    let mut made = 0;
    for (name, result) in names.iter().zip(futures_util::future::join_all(puts).await) {
        match result {
            Ok((_, is_new)) => {
                made += 1;
                assert!(is_new);
                assert_eq!(other.root().user(name).await.expect("it is there").name, *name);
            }
            Err(refused) => assert_eq!(code::<()>(Err(refused)).0, Code::Overloaded),
        }
    }
    assert_eq!(one.root().users().await.expect("all").len(), made);
    assert!(made >= 2);
}

#[tokio::test]
async fn the_first_administrator_is_made_where_there_is_none() {
    let ground = Ground::new();
    let first = FirstAdministrator::parse("root", "correct horse".into()).expect("one");
    assert!(ground.root().make_first(&first).await.expect("made"));
    assert!(!ground.root().make_first(&first).await.expect("there is one"));
    let user = ground.root().user("root").await.expect("it is there");
    assert_eq!((user.roles, user.has_password), (vec!["admin".to_owned()], true));
    assert!(has_administrator(&*ground.storage.access, ground.clock.now()).await.expect("an answer"));

    let other = Ground::new();
    assert!(!has_administrator(&*other.storage.access, other.clock.now()).await.expect("an answer"));
    other.user("root", &["read"]).await;
    assert_eq!(code(other.root().make_first(&first).await).0, Code::Conflict, "nobody is given rights so");
    assert!(FirstAdministrator::parse("anonymous", "correct horse".into()).is_err());
    assert!(FirstAdministrator::parse("root", "short".into()).is_err());
}

#[tokio::test]
async fn it_is_explained_what_decides() {
    let ground = Ground::new();
    let root = ground.root();
    root.put_role("crew", &["allow read a.*".to_owned(), "deny read a.secret".to_owned()])
        .await
        .expect("a role");
    let ann = ground.user("ann", &["crew"]).await;
    let token = ann.create_token(&wanted(&["allow read *"])).await.expect("a token").info.token_id;
    for (principal, topic, is_owner, allowed, rule) in [
        (Some("ann"), "a.x", false, true, Some("allow read a.*")),
        (Some("ann"), "a.secret", true, false, Some("deny read a.secret")),
        (Some("ann"), "b", true, true, Some("the topic is its own")),
        (Some("ann"), "b", false, false, None),
        (Some(&*token), "a.x", false, true, Some("allow read *")),
        (Some(&*token), "b", false, false, Some("allow read * (but its maker may not)")),
        (Some("anonymous"), "a.x", false, false, None),
        (None, "a.x", false, true, Some("the relay is open to everybody")),
    ] {
        let caller = root.principal(principal).await.expect("it is there");
        let topic = TopicName::parse(topic).expect("a name");
        let told = explained(&caller, Verb::Read, Thing::Topic(&topic), is_owner);
        assert_eq!((told.allowed, told.rule.as_deref()), (allowed, rule), "{principal:?} {topic}");
        assert_eq!(told.principal, caller.who().to_string());
    }
    assert!(ann.principal(None).await.is_ok(), "anybody asks about itself");
    assert_eq!(code(root.principal(Some("nobody")).await).0, Code::InvalidField);
}

#[tokio::test(start_paused = true)]
async fn when_a_token_was_used_is_kept_once_in_a_minute() {
    let ground = Ground::new();
    let made = ground.root().create_token(&wanted(&["allow read *"])).await.expect("a token");
    let revision = async || {
        ground.storage.records.records(None).await.expect("an answer").map(|records| records.revision)
    };
    let before = revision().await;
    for _ in 0..100 {
        ground.by(&made.token).expect("let in");
    }
    assert_eq!(revision().await, before, "nobody who calls waits for it");
    tokio::time::sleep(Duration::from_secs(61)).await;
    let kept = revision().await;
    assert_ne!(kept, before);
    let minute = Timestamp::from_millis(ground.clock.now().as_millis() / 60_000 * 60_000);
    let other = Ground::beside(ground.storage.clone());
    assert_eq!(other.root().tokens().await.expect("all")[0].last_used_at, Some(minute), "other nodes know");
    ground.by(&made.token).expect("let in");
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(revision().await, kept, "in the same minute, and without use, nothing is written");
    ground.advance(Duration::from_mins(1));
    ground.by(&made.token).expect("let in");
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_ne!(revision().await, kept);
    ground.root().revoke_token(&made.info.token_id).await.expect("revoked");
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(ground.kept().await, "{} {}", "nothing is left of a token that is gone");
}

#[tokio::test]
async fn who_may_not_administer_leaves_room_with_all_that_its_tokens_make() {
    use crate::access::documents::{Maker, TOKEN, Token, TokenHash, edit};

    let ground = Ground::new();
    let (ann, root) = (ground.user("ann", &["write"]).await, ground.user("ops", &["admin"]).await);
    let first = ann.create_token(&wanted(&["allow read *"])).await.expect("a token");
    let by_token = ground.access.as_caller(ground.by(&first.token).expect("let in"));
    // 998 more: some of hers, some of her token, and some of those.
    let token = |maker| Token {
        name: "t".to_owned(),
        hash: TokenHash::of(&[0; 32]),
        rules: Vec::new(),
        maker: Some(maker),
        created_at: Timestamp::from_millis(1),
        expires_at: None,
    };
    let maker = |number: usize| match number {
        0..300 => Maker::User("ann".to_owned()),
        300..600 => Maker::Token(first.info.token_id.clone()),
        number => Maker::Token(format!("t{}", number - 300)),
    };
    let edits = (0..998).map(|number| edit(TOKEN, &format!("t{number}"), Some(&token(maker(number)))));
    let revision = root.directory().await.expect("an answer").revision;
    let changed = ground.storage.access.change_documents(revision, 7, edits.collect()).await;
    assert!(changed.expect("an answer"));
    by_token.create_token(&wanted(&[])).await.expect("the last one");
    for maker in [&by_token, &ann] {
        let (code, detail) = code(maker.create_token(&wanted(&[])).await);
        assert!(code == Code::Conflict && detail.contains("user \"ann\""), "{detail}");
    }
    root.create_token(&wanted(&[])).await.expect("others have room");
    ann.revoke_token("t300").await.expect_err("it is another's");
    by_token.revoke_token("t300").await.expect("it is its own, with what that has made");
    ann.create_token(&wanted(&[])).await.expect("there is room again");
}
