//! Settings of several servers that topics are placed on.

use secrecy::ExposeSecret as _;
use tidemill::proto::TopicSelector;
use tidemill::storage::valkey::Placed;

use super::{SECRET, error, file, load};

const VALKEY: (&str, &str) = ("STORAGE_BACKEND", "valkey");
const URL: (&str, &str) = ("VALKEY_URL", "valkey://main");

fn placed(pairs: &[(&str, &str)]) -> Vec<Placed> {
    let settings = load(&[], &[&[VALKEY, URL], pairs].concat()).expect("the settings are right");
    assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
    let options = settings.valkey_options().expect("the settings are right");
    assert!(!format!("{options:?} {settings:?}").contains(SECRET));
    options.placed
}

fn refused(text: &str) -> String {
    let error = error(&[], &[VALKEY, URL, ("VALKEY_PLACEMENT", text)]);
    assert!(error.contains("valkey_placement") && !error.contains(SECRET), "{text}: {error}");
    error
}

#[test]
fn servers_stand_in_their_order_with_what_they_have() {
    let text = " eu.*, orders = valkey://eu:7000 ;\n us.*=valkeys://:pw@us/2;";
    let all = placed(&[("VALKEY_PLACEMENT", text)]);
    let told: Vec<(Vec<&str>, String)> = all
        .iter()
        .map(|one| (one.topics.iter().map(TopicSelector::as_str).collect(), one.target.to_string()))
        .collect();
    let [eu, us] = ["valkey://eu:7000/0", "valkeys://:***@us:6379/2"].map(str::to_owned);
    assert_eq!(told, [(vec!["eu.*", "orders"], eu), (vec!["us.*"], us)]);
    assert_eq!(all.iter().map(|one| one.sentinel_tls).collect::<Vec<_>>(), [false, true]);
    assert!(placed(&[]).is_empty());

    let (_folder, path) = file("placement", "eu.*=valkey://:h3cret@eu\n");
    let of_file = placed(&[("VALKEY_PLACEMENT_FILE", &path)]);
    assert_eq!(of_file[0].target.to_string(), "valkey://:***@eu:6379/0");
}

#[test]
fn a_url_without_a_login_has_that_of_the_settings() {
    let (_folder, path) = file("password", "h3cret\n");
    let all = placed(&[
        ("VALKEY_PASSWORD_FILE", &path),
        ("VALKEY_USERNAME", "relay"),
        ("VALKEY_PLACEMENT", "eu.*=valkey://eu;us.*=valkey://own:pw@us"),
    ]);
    let login = |one: &Placed| {
        let password = one.target.password.as_ref().map(|password| password.expose_secret().to_owned());
        (one.target.username.clone(), password, one.password_file.is_some())
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(login(&all[0]), (some("relay"), some("h3cret"), true));
    assert_eq!(login(&all[1]), (some("own"), some("pw"), false));
}

#[test]
fn what_is_wrong_with_a_placement_is_said_and_no_url_repeated() {
    for (text, rule) in [
        ("eu.*", "part 1 that has no `=`"),
        ("eu.*=valkey://a; valkey://:h3cret@b", "part 2 that has no `=`"),
        ("=valkey://h3cret", "a name or pattern that is empty"),
        (
            "eu.*,=valkey://h3cret",
            "part 1 that has in front of its `=`, at place 2, a name or pattern that is empty",
        ),
        ("eu.*=valkey://a,us.*=valkey://:h3cret@b", "between servers stands `;`"),
        ("eu..*/x=valkey://h3cret", "the character '/'"),
        (".eu=valkey://h3cret", "starts or ends"),
        ("eu.*=http://h3cret", "unknown scheme"),
        ("eu.*=valkey://:h3cret@", "no host"),
        ("eu.*=valkey://a; us.*,eu.*=valkey://b", "has `eu.*` twice"),
        ("eu.*,eu.*=valkey://a", "has `eu.*` twice"),
        (
            "eu.*=valkey://a:1; us.*=valkeys://:h3cret@A:1/0",
            "part 2 that names the server and database of part 1",
        ),
        ("eu.*=valkey://a,b; us.*=valkey://b", "part 2 that names the server and database of part 1"),
        ("eu.*=valkey://main:6379", "that has everything else anyway"),
    ] {
        let error = refused(text);
        assert!(error.contains(rule), "{text}: {error}");
    }
    // The same server may have several databases.
    assert_eq!(placed(&[("VALKEY_PLACEMENT", "eu.*=valkey://main/1; us.*=valkey://main/2")]).len(), 2);
}

#[test]
fn servers_and_names_are_so_many_and_no_more() {
    let of = |servers: usize| {
        let parts = (0..servers).map(|number| format!("t{number}=valkey://h{number}"));
        parts.collect::<Vec<_>>().join(";")
    };
    assert_eq!(placed(&[("VALKEY_PLACEMENT", &of(16))]).len(), 16);
    assert!(refused(&of(17)).contains("more than 16 servers"));
    let names = |count: usize| {
        let names = (0..count).map(|number| format!("t{number}"));
        format!("{}=valkey://h", names.collect::<Vec<_>>().join(","))
    };
    assert_eq!(placed(&[("VALKEY_PLACEMENT", &names(256))])[0].topics.len(), 256);
    assert!(refused(&names(257)).contains("more than 256 names and patterns"));
}

#[test]
fn a_cluster_goes_with_neither_a_placement_nor_sentinels() {
    let cluster = ("VALKEY_CLUSTER", "true");
    let both = error(&[], &[VALKEY, URL, cluster, ("VALKEY_PLACEMENT", "eu.*=valkey://eu")]);
    assert!(
        both.contains("valkey_placement") && both.contains("contradicts valkey_cluster = true"),
        "{both}"
    );
    let watched = error(&[], &[VALKEY, cluster, ("VALKEY_URL", "valkey+sentinel://:h3cret@a/main")]);
    assert!(
        watched.contains("sentinels") && watched.contains("contradicts valkey_cluster = true"),
        "{watched}"
    );
    assert!(!watched.contains(SECRET));
    let settings = load(&[], &[("VALKEY_PLACEMENT", "eu.*=valkey://eu")]).expect("it harms nothing");
    let warnings = settings.warnings.join("\n");
    assert!(
        warnings.contains("valkey_placement") && warnings.contains("STORAGE_BACKEND=valkey"),
        "{warnings}"
    );
}

#[test]
fn what_is_for_servers_alone_is_refused_where_memory_is_asked_for() {
    let memory = ("STORAGE_BACKEND", "memory");
    for asked in [
        ("VALKEY_PLACEMENT", "eu.*=valkey://:h3cret@eu"),
        ("VALKEY_CLUSTER", "true"),
        ("VALKEY_READ_FROM", "replica"),
    ] {
        let error = error(&[], &[memory, URL, asked]);
        let (setting, from) = (asked.0.to_lowercase(), format!("(from variable {})", asked.0));
        assert!(error.starts_with(&format!("{setting} {from} is for servers, and contradicts")), "{error}");
        assert!(error.contains("storage_backend = memory (from variable STORAGE_BACKEND)"), "{error}");
        assert!(!error.contains(SECRET));
    }
    let auto = ("VALKEY_CLUSTER", "auto");
    assert!(load(&[], &[memory, URL, auto]).expect("it asks for nothing").warnings.is_empty());
}

#[test]
fn durabilities_of_topics_say_which_part_is_wrong() {
    let rules = ("TIDEMILL_DURABILITY_TOPICS", "orders.*, jobs=fsync; log=acepted");
    let error = error(&[], &[VALKEY, URL, rules]);
    assert!(
        error.contains("durability_topics (from variable TIDEMILL_DURABILITY_TOPICS)")
            && error.contains("` has a part 2, `log=acepted`, in which what stands behind the `=` must be"),
        "{error}"
    );
}
