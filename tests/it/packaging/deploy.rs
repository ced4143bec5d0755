//! What runs the relay elsewhere: units of systemd, the package for Debian, and manifests for Kubernetes, held to what
//! docs/install.md says. `scripts/test-deploy` holds them to their schemas, `scripts/test-packages` tries the package.

use std::collections::BTreeMap;
use std::process::Command;

use clap::Parser as _;
use serde_json::{Value, json};
use tidemill::cli::Cli;
use tidemill::config::{Environment, known};

use super::{is_setting, root, text_of};

/// Returns the settings of a unit, of all sections, and all values of each.
fn unit(name: &str) -> BTreeMap<String, Vec<String>> {
    let mut settings = BTreeMap::<_, Vec<_>>::new();
    for line in text_of(&format!("deploy/systemd/{name}")).lines() {
        if let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
            settings.entry(key.to_owned()).or_default().push(value.to_owned());
        }
    }
    settings
}

fn default_of(name: &str) -> String {
    let found = known().iter().find(|setting| setting.id == name);
    found.and_then(|setting| setting.default.clone()).expect("a setting with a default")
}

#[test]
fn the_units_run_the_relay_as_it_says_it_is_run() {
    let service = unit("tidemill.service");
    let one = |key: &str| {
        let values = service.get(key).unwrap_or_else(|| panic!("{key} is not set"));
        values.join(" ")
    };
    let start = one("ExecStart");
    let words: Vec<_> = start.split(' ').collect();
    assert_eq!(words[0], "/usr/bin/tidemill");
    assert!(Cli::try_parse_from(&words).is_ok(), "{start}");
    assert_eq!((one("Type"), one("ExecReload")), ("notify".to_owned(), "/bin/kill -HUP $MAINPID".to_owned()));
    let stop_seconds: u64 = one("TimeoutStopSec").parse().expect("seconds");
    let drain_ms: u64 = default_of("drain_ms").parse().expect("milliseconds");
    assert!(stop_seconds * 1_000 >= drain_ms * 2, "{stop_seconds} s");
    for key in ["NoNewPrivileges", "MemoryDenyWriteExecute", "PrivateUsers", "PrivateDevices", "WatchdogSec"]
    {
        assert_ne!(one(key), "", "{key}");
    }
    assert_eq!((one("CapabilityBoundingSet"), one("ProtectSystem")), (String::new(), "strict".to_owned()));
    let socket = unit("tidemill.socket");
    assert_eq!(socket["ListenStream"], [default_of("listen")], "the relay takes no other");
}

#[test]
fn the_package_has_what_the_page_says() {
    let manifest: toml::Table = text_of("Cargo.toml").parse().expect("Cargo.toml is TOML");
    let deb = &manifest["package"]["metadata"]["deb"];
    let assets = deb["assets"].as_array().expect("a list");
    let mut placed = BTreeMap::new();
    for asset in assets {
        let [from, to, mode] = [0, 1, 2].map(|at| asset[at].as_str().expect("a text"));
        // What is under target/ is made by scripts/build-packages.
        assert!(from.starts_with("target/") || root().join(from).exists(), "{from} does not exist");
        placed.insert(to, (from, mode));
    }
    assert_eq!(placed["etc/tidemill/tidemill.toml"].1, "640");
    assert_eq!(deb["conf-files"].as_array().map(Vec::len), Some(1));
    for path in
        ["lib/systemd/system/tidemill.service", "usr/share/man/man1/", "usr/lib/sysusers.d/tidemill.conf"]
    {
        assert!(placed.contains_key(path), "{path}");
    }
    // What goes to other machines is in the package and in the archive, under the same names.
    let (archive, page) = (text_of("scripts/build-packages"), text_of("docs/install.md"));
    for (name, path) in [
        ("valkey.conf", "valkey.conf"),
        ("prometheus/tidemill.rules.yml", "deploy/prometheus/tidemill.rules.yml"),
        ("grafana/tidemill.json", "deploy/grafana/tidemill.json"),
    ] {
        assert_eq!(placed[format!("usr/share/tidemill/{name}").as_str()].0, path);
        assert!(archive.contains(&format!("cp {path} \"$folder/share")) && page.contains(name), "{name}");
    }
    for script in ["postinst", "prerm", "postrm"] {
        let path = root().join("deploy/debian").join(script);
        let status = Command::new("/bin/sh").arg("-n").arg(&path).status().expect("there is a shell");
        assert!(status.success(), "{script}");
    }
}

/// Returns the manifests that are applied, by their kind.
fn manifests() -> BTreeMap<String, Value> {
    let read = |name: &str| -> Value {
        let text = text_of(&format!("deploy/kubernetes/{name}"));
        serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let names = read("kustomization.yaml")["resources"].clone();
    let names =
        names.as_array().expect("a list").iter().map(|name| name.as_str().expect("a text").to_owned());
    names
        .map(|name| {
            let manifest = read(&name);
            (manifest["kind"].as_str().expect("a kind").to_owned(), manifest)
        })
        .collect()
}

#[test]
fn the_manifests_drain_a_relay_before_it_is_stopped_and_replace_it_by_one_that_serves() {
    let manifests = manifests();
    let deployment = &manifests["Deployment"]["spec"];
    assert!(deployment["replicas"].as_u64() >= Some(2));
    assert_eq!(deployment["strategy"]["rollingUpdate"]["maxUnavailable"], 0);
    assert_eq!(manifests["PodDisruptionBudget"]["spec"]["maxUnavailable"], 1);
    let pod = &deployment["template"]["spec"];
    let container = &pod["containers"][0];

    let hook = container["lifecycle"]["preStop"]["exec"]["command"].as_array().expect("a command");
    let mut words: Vec<_> = hook.iter().map(|word| word.as_str().expect("a text").to_owned()).collect();
    let token = words.last_mut().expect("a token");
    let secrets = &container["volumeMounts"][0];
    assert!(token.starts_with(&format!("@{}/", secrets["mountPath"].as_str().expect("a path"))), "{token}");
    // The file is there where Kubernetes runs it.
    *token = "text".to_owned();
    assert_eq!(words[..3], ["/usr/local/bin/tidemill", "drain", "--wait"]);
    let parsed = Cli::try_parse_from(&words);
    assert!(parsed.is_ok(), "{parsed:?}");

    let settings = manifests["ConfigMap"]["data"].as_object().expect("a map");
    for name in settings.keys() {
        assert!(is_setting(name), "{name} is no setting");
    }
    let ms =
        |name: &str| settings[name].as_str().and_then(|ms| ms.parse::<u64>().ok()).expect("milliseconds");
    let (notice, spread, drain) =
        (ms("TIDEMILL_DRAIN_NOTICE_MS"), ms("TIDEMILL_DRAIN_SPREAD_MS"), ms("TIDEMILL_DRAIN_MS"));
    let grace = pod["terminationGracePeriodSeconds"].as_u64().expect("seconds") * 1_000;
    assert!(grace > notice + spread + drain + drain, "the hook counts, too: {grace} ms");

    for (probe, path) in
        [("startupProbe", "/health"), ("livenessProbe", "/health"), ("readinessProbe", "/ready")]
    {
        assert_eq!(container[probe]["httpGet"]["path"], path, "{probe}");
    }
    let readiness = &container["readinessProbe"];
    let noticed = readiness["periodSeconds"].as_u64().zip(readiness["failureThreshold"].as_u64());
    let noticed_ms = noticed.map(|(period, failures)| period * failures * 1_000).expect("both are set");
    assert!(noticed_ms < notice, "{noticed_ms} ms");

    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["automountServiceAccountToken"], false);
    let confined = &container["securityContext"];
    assert_eq!(confined["readOnlyRootFilesystem"], true);
    assert_eq!(confined["allowPrivilegeEscalation"], false);
    assert_eq!(confined["capabilities"]["drop"], json!(["ALL"]));
}

#[test]
fn the_settings_of_the_manifests_are_understood() {
    let manifests = manifests();
    let settings = manifests["ConfigMap"]["data"].as_object().expect("a map").iter();
    let is_file = |name: &str| name.ends_with("_FILE");
    let environment: Environment = settings
        .filter(|(name, _)| !is_file(name))
        .map(|(name, value)| (name.clone(), value.as_str().expect("a text").to_owned()))
        .collect();
    let flags = tidemill_flags();
    let loaded = tidemill::config::Settings::load(&flags, &environment);
    assert!(loaded.is_ok(), "{loaded:?}");
}

fn tidemill_flags() -> tidemill::config::Flags {
    use clap::{Args as _, FromArgMatches as _};

    let command = tidemill::config::Flags::augment_args(clap::Command::new("tidemill").no_binary_name(true));
    let none: [&str; 0] = [];
    let matches = command.try_get_matches_from(none).expect("no flags");
    tidemill::config::Flags::from_arg_matches(&matches).expect("no flags")
}
