//! docker-compose.cluster.yml: relays on a cluster. Its servers are started with its very command.

use serde_json::{Value, json};

use super::{ask, compose_of, is_confined_and_checked, no_secret_stands_in, start_service, wants_a_password};

const FILE: &str = "docker-compose.cluster.yml";

#[test]
fn every_service_is_confined_and_the_cluster_is_made_of_all_servers() {
    let compose = compose_of(FILE);
    let services = compose["services"].as_object().expect("there are services");
    let of = |prefix: &str| -> Vec<(&String, &Value)> {
        services.iter().filter(|(name, _)| name.starts_with(prefix)).collect()
    };
    let (relays, servers) = (of("relay-"), of("valkey-"));
    assert_eq!((relays.len(), servers.len(), services.len()), (2, 6, 9));
    for (name, service) in relays.iter().chain(&servers) {
        is_confined_and_checked(name, service);
    }
    for (name, relay) in &relays {
        assert_eq!(relay["depends_on"]["cluster"]["condition"], "service_completed_successfully", "{name}");
        let port = relay["ports"][0].as_str().expect("a port");
        assert!(port.starts_with("127.0.0.1:"), "{name} speaks no TLS");
        assert_eq!(relay["environment"]["VALKEY_CLUSTER"], "true", "{name}");
    }
    let made = services["cluster"]["command"][0].as_str().expect("a script");
    for (name, server) in &servers {
        assert!(server["ports"].is_null(), "nobody but the relays reaches {name}");
        let address = server["networks"]["storage"]["ipv4_address"].as_str().expect("an address that stays");
        assert!(made.contains(&format!("{address}:6379")), "{name} is no part of the cluster");
        assert_eq!(services["cluster"]["depends_on"][*name], json!({"condition": "service_healthy"}));
        let volume = format!("{name}:/data");
        assert!(server["volumes"].as_array().is_some_and(|all| all.contains(&json!(volume))), "{name}");
        assert!(!compose["volumes"][*name].is_null(), "{name}");
    }
    assert_eq!(compose["networks"]["storage"]["internal"], true);
    assert_eq!(services["cluster"]["restart"], "no");
    no_secret_stands_in(&compose);
}

#[tokio::test]
async fn a_server_starts_as_one_of_a_cluster() {
    let Some(server) = start_service(&compose_of(FILE)["services"]["valkey-1"]).await else { return };
    wants_a_password(&server).await;
    for (name, value) in [("cluster-enabled", "yes"), ("appendonly", "yes"), ("maxmemory", "713031680")] {
        assert_eq!(ask(&server, &["CONFIG", "GET", name]).await, format!("{name}\n{value}"));
    }
}
