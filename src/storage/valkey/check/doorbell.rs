//! Whether notices are heard: of relays on the doorbell, and of the server on the changes of a topic.

use tokio::time::timeout;

use super::Probe;
use super::servers::Server;
use crate::storage::valkey::failure::lacks_right;
use crate::storage::valkey::resp::RespConnection;

/// The notice of a check begins with this; no topic can have such a name, so relays do not listen.
const NOTICE_PREFIX: &str = "$check:";

/// How a channel is listened to, how it is rung, and its name.
type Channel = (&'static str, &'static str, String);

impl Probe {
    /// Rings the relay's doorbell and listens for it, and subscribes to the changes of a topic as the relay does. Where the
    /// user may not do the latter, the relay does without, and what it lacks is told of its rights.
    pub(super) async fn doorbell(&self, server: &Server) -> Result<String, String> {
        let changes = self.keys.changes(&self.topic, server.options.target.database);
        let own: Vec<Channel> = server.doorbell().into_iter().collect();
        let all = std::iter::once(("SUBSCRIBE", "PUBLISH", changes)).chain(own.clone()).collect::<Vec<_>>();
        match self.ring(server, &all).await {
            Err(error) if lacks_right(&error) => self.ring(server, &own).await,
            told => told,
        }
    }

    async fn ring(&self, server: &Server, channels: &[Channel]) -> Result<String, String> {
        let notice = format!("{NOTICE_PREFIX}{}", self.topic);
        let mut notices = glide::pipe();
        for (_, publish, channel) in channels {
            notices.cmd(publish).arg(channel).arg(&notice);
        }
        let opened = RespConnection::open(&server.options, "tidemill-check").await;
        let (resp, driver, _) = opened.map_err(|error| error.to_string())?;
        let (tell, mut told) = tokio::sync::mpsc::channel(2);
        let listening = driver.listen(|message| {
            if message.last().and_then(|text| text.bytes().map(|text| text == notice.as_bytes()))
                == Some(true)
            {
                // Who no longer waits needs to hear nothing.
                let _ = tell.try_send(());
            }
        });
        let checked = async {
            for (subscribe, _, channel) in channels {
                resp.subscribe(subscribe, &[channel], self.timeout).await?;
            }
            if !channels.is_empty() {
                self.run(&notices).await?;
            }
            // Once on each channel.
            for _ in channels {
                told.recv().await;
            }
            Ok("a notice was sent and heard".to_owned())
        };
        let heard = async {
            tokio::select! {
                biased;
                checked = checked => checked,
                reason = listening => Err(reason),
            }
        };
        timeout(self.timeout, heard)
            .await
            .unwrap_or_else(|_| Err("a notice was sent, but not heard".to_owned()))
    }
}
