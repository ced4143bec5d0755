//! Several servers, of which one is the primary: all are asked, at every attempt to connect.

use async_trait::async_trait;
use parking_lot::Mutex;

use super::super::options::ValkeyOptions;
use super::super::resolver::{Address, Resolver};
use super::super::target::Target;
use super::looking::{Role, role_of};
use super::{addresses_of, answers};

/// Finds the one that is the primary.
#[derive(Debug)]
pub(super) struct Standby {
    options: ValkeyOptions,
    servers: Vec<Address>,
    found: Mutex<Option<Address>>,
}

impl Standby {
    pub(super) fn new(options: ValkeyOptions) -> Self {
        let servers = addresses_of(&options);
        Self { options, servers, found: Mutex::new(None) }
    }

    /// Chooses among what the servers say.
    fn choose(&self, told: &[Result<Role, String>]) -> Result<Address, String> {
        let of = |role| {
            let told = self.servers.iter().zip(told);
            told.filter(move |(_, told)| **told == Ok(role)).map(|(server, _)| server).collect::<Vec<_>>()
        };
        // Any of a cluster knows of all.
        if let Some(first) = of(Role::InCluster).first() {
            return Ok((*first).clone());
        }
        match &of(Role::Primary)[..] {
            [one] => Ok((*one).clone()),
            [] => {
                let told = self.servers.iter().zip(told).filter_map(|(server, told)| {
                    let reason = told.as_ref().err()?;
                    Some(format!("{server} {reason}"))
                });
                Err(format!("no server is the primary: {}", told.collect::<Vec<_>>().join("; ")))
            }
            // What was promoted by somebody may not be followed while what it replaces goes on: nobody here can know which of
            // them has the messages.
            several => {
                let names: Vec<_> = several.iter().map(ToString::to_string).collect();
                Err(format!("more than one server says that it is the primary: {}", names.join(", ")))
            }
        }
    }
}

#[async_trait]
impl Resolver for Standby {
    async fn primary_of(&self, _: &Target) -> Result<Address, String> {
        let within = self.options.connect_timeout * 3 / 4;
        let told = answers(self.servers.iter().map(|server| role_of(&self.options, server, within))).await;
        let chosen = self.choose(&told)?;
        let mut found = self.found.lock();
        if found.as_ref() != Some(&chosen) {
            tracing::info!(primary = %chosen, "the primary of {} is found", self.options.target);
            *found = Some(chosen.clone());
        }
        Ok(chosen)
    }

    fn found(&self) -> Option<Address> {
        self.found.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_is_the_primary_is_chosen() {
        let target = Target::parse("valkey://a,b,c").expect("a URL");
        let standby = Standby::new(ValkeyOptions::new(target));
        let chosen = |told: [Result<Role, &str>; 3]| {
            let told = told.map(|told| told.map_err(str::to_owned));
            standby.choose(&told).map(|address| address.to_string())
        };
        let (replica, gone) = (Err("is a replica"), Err("cannot be reached"));
        assert_eq!(chosen([replica, Ok(Role::Primary), gone]), Ok("b:6379".to_owned()));
        assert_eq!(chosen([gone, Ok(Role::InCluster), Ok(Role::InCluster)]), Ok("b:6379".to_owned()));
        let none = chosen([replica, gone, replica]).unwrap_err();
        let all = "a:6379 is a replica; b:6379 cannot be reached; c:6379 is a replica";
        assert_eq!(none, format!("no server is the primary: {all}"));
        let several = chosen([Ok(Role::Primary), gone, Ok(Role::Primary)]).unwrap_err();
        assert_eq!(several, "more than one server says that it is the primary: a:6379, c:6379");
    }
}
