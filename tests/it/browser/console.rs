//! The console in a real browser, at a closed relay: every page, in both schemes and at the width of a phone; a whole life
//! of a topic and of a dead letter; a connection that breaks.

use serde_json::{Value, json};
use tidemill::server::ServerOptions;
use tidemill::storage::Storage;

use super::developer::Tools;
use super::{Browser, find, open};
use crate::access::closed::{close, log_in, send, user};
use crate::support::proxy::Proxy;
use crate::support::raw::Stream;
use crate::support::relay::{TestRelay, memory};

/// What every page is looked at with: what has gone wrong in it, and what somebody does who sees it.
const HANDS: &str = r"
window.wrong = [];
addEventListener('error', event => wrong.push(`error: ${event.message}`));
addEventListener('unhandledrejection', event => wrong.push(`rejection: ${event.reason?.stack ?? event.reason}`));
addEventListener('securitypolicyviolation', event => wrong.push(`policy: ${event.violatedDirective} ${event.blockedURI}`));
window.until = (what, probe) => new Promise((done, failed) => {
  const since = Date.now();
  const look = () => {
    let found;
    try { found = probe(); } catch { found = null; }
    if (found) return done(found);
    if (Date.now() - since > 15_000) return failed(new Error(`${what}: ${document.body.innerText.slice(0, 3000)}`));
    setTimeout(look, 20);
  };
  look();
});
const isSeen = element => element.checkVisibility() && !element.disabled;
const own = element => [...element.childNodes].filter(node => node.nodeType === 3).map(node => node.data).join('').trim();
const all = (selector, text) => [...document.querySelectorAll(selector)].filter(element => isSeen(element) && own(element) === text);
window.press = text => until(`no ${text} to press`, () => {
  const found = all('dialog a, dialog button', text)[0] ?? all('button, summary', text)[0] ?? all('a', text)[0];
  found?.click();
  return found;
}).then(() => null);
window.fill = (label, value) => until(`no field ${label}`, () => {
  const found = (all('dialog label', label)[0] ?? all('label', label)[0])?.querySelector('input, textarea, select');
  if (!found) return null;
  found.value = value;
  found.dispatchEvent(new Event('input', { bubbles: true }));
  return found;
}).then(() => null);
window.shows = text => until(`it does not show ${text}`, () => document.querySelector('main').innerText.includes(text)).then(() => null);
window.hides = text => until(`it still shows ${text}`, () => !document.querySelector('main').innerText.includes(text)).then(() => null);
";

/// Returns what is written with too little contrast (WCAG 2.2, 1.4.3: 4.5, large text 3), and whether the page is wider
/// than the screen.
const LOOKS: &str = r"(() => {
  const context = Object.assign(document.createElement('canvas'), { width: 1, height: 1 }).getContext('2d', { willReadFrequently: true });
  const read = colour => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map(part => part / 255)
    .map(part => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = read(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return read(getComputedStyle(document.documentElement).backgroundColor);
  };
  const pale = [];
  let looked = 0;
  for (const element of document.querySelectorAll('body *')) {
    const isText = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim() !== '') || element.matches('input, textarea');
    if (!isText || !element.checkVisibility() || element.matches('.skip, :disabled')) continue;
    const style = getComputedStyle(element);
    const [one, other] = [light(read(style.color)), light(ground(element))].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    looked += 1;
    if (ratio < (parseFloat(style.fontSize) >= 24 ? 3 : 4.5)) pale.push(`${element.tagName}.${element.className} ${ratio.toFixed(2)} ${element.textContent.slice(0, 40)}`);
  }
  const nameless = [...document.querySelectorAll('input, textarea, select, button, a')]
    .filter(element => element.checkVisibility() && !(element.labels?.length || element.textContent.trim() || element.getAttribute('aria-label')))
    .map(element => element.outerHTML);
  // What is short is in one line, also in a table that is wider than the screen; a name takes a few lines at most.
  const tall = (element, lines) => {
    const inside = new Range();
    inside.selectNodeContents(element);
    return inside.getBoundingClientRect().height > lines * 1.6 * parseFloat(getComputedStyle(element).fontSize) + 14;
  };
  const broken = [...document.querySelectorAll('td time, td button, td.number, th, td code'), ...document.querySelectorAll('header nav')]
    .filter(element => element.checkVisibility() && tall(element, 1)).map(element => `${element.tagName} ${element.textContent}`);
  broken.push(...[...document.querySelectorAll('td.name > div')].filter(name => name.offsetHeight > 3 * 1.6 * parseFloat(getComputedStyle(name).fontSize))
    .map(name => name.textContent));
  return { looked, pale, nameless, broken, wide: document.documentElement.scrollWidth - document.documentElement.clientWidth };
})()";

/// The console of a closed relay, in a browser.
pub(super) struct Shown {
    pub(super) relay: TestRelay,
    pub(super) proxy: Proxy,
    browser: Browser,
    pub(super) tools: Tools,
    pub(super) url: String,
    pub(super) root: String,
}

impl Shown {
    /// Opens the console, which asks who is there; or returns `None` where there is no browser.
    pub(super) async fn open() -> Option<Self> {
        Self::open_on(memory(), |_| {}).await
    }

    /// As `open`, of a relay in front of this storage, with other options.
    pub(super) async fn open_on(storage: Storage, change: impl FnOnce(&mut ServerOptions)) -> Option<Self> {
        let binary = find()?;
        let relay = TestRelay::start_with(storage, |options| {
            close(options);
            change(options);
        })
        .await;
        let root = log_in(&relay, "root").await;
        let proxy = Proxy::start(relay.address.port()).await;
        let browser = open(binary, "about:blank", &[]);
        let mut tools = Tools::open(&browser).await;
        tools.run_first(HANDS).await;
        let url = format!("http://127.0.0.1:{}/console/", proxy.port());
        tools.go(&url).await;
        tools.run("shows('Log in')").await;
        Some(Self { relay, proxy, browser, tools, url, root })
    }

    /// Logs in, by the form.
    pub(super) async fn log_in(&mut self, name: &str) {
        self.does(&format!(
            "await fill('Name', '{name}'); await fill('Password', 'correct horse'); await press('Log in');"
        ))
        .await;
        self.does("await shows('Overview');").await;
    }

    /// Does what a script says, step by step.
    pub(super) async fn does(&mut self, script: &str) {
        self.tools.run(&format!("(async () => {{ {script} }})()")).await;
    }

    /// Goes to a page of the console, and waits until it shows this.
    pub(super) async fn at(&mut self, page: &str, text: &str) {
        let there = "await until('it goes there', () => document.querySelector('main').dataset.page === location.hash);";
        self.does(&format!("location.hash = {}; {there} await shows({});", json!(page), json!(text))).await;
    }

    pub(super) async fn asks(&self, method: &str, path: &str, body: Value) -> Value {
        let answer = send(&self.relay, Some(&self.root), method, path, &body).await;
        assert!((200..300).contains(&answer.status), "{method} {path}: {answer:?}");
        if answer.body.is_empty() { Value::Null } else { answer.json() }
    }

    pub(super) async fn publish(&self, topic: &str, payload: &str) {
        let payload = serde_json::from_str(payload).expect("JSON");
        self.asks("POST", &format!("/api/v1/topics/{topic}/messages"), payload).await;
    }

    /// Ends it, where nothing has gone wrong on the way but what is expected.
    pub(super) async fn close(mut self) {
        assert_eq!(self.tools.run("wrong").await, json!([]));
        drop(self.browser);
        self.relay.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_life_of_a_topic() {
    let Some(mut shown) = Shown::open().await else { return };
    // A wrong password is told, and a right one lets in.
    shown
        .does("await fill('Name', 'root'); await fill('Password', 'wrong'); await press('Log in'); await shows('unauthenticated');")
        .await;
    shown.log_in("root").await;
    shown.at("#/topics", "There is no topic").await;
    shown
        .does("await press('Make a topic'); await fill('Name', 'orders'); await fill('Description', '<b>of the shop'); await press('Make it'); await shows('<b>of the shop');")
        .await;
    shown.at("#/topic/orders/publish", "Publish a message").await;
    // A number that JavaScript cannot hold goes and comes as it is, and no text is markup.
    shown
        .does(r#"await fill('Payload', '{"order": 12345678901234567890, "by": "<i>ann</i>"}'); await press('Publish'); await shows('Kept as');"#)
        .await;
    let page = shown.asks("GET", "/api/v1/topics/orders/messages", Value::Null).await;
    assert_eq!(page["messages"][0]["payload"]["order"].to_string(), "12345678901234567890", "{page}");
    shown.at("#/topic/orders", r#""order": 12345678901234567890"#).await;
    shown.does("await shows('<i>ann</i>');").await;
    shown
        .does(r"location.hash = '#/topic/orders/publish'; await shows('Publish a message'); await fill('Payload', '{wrong'); await press('Publish'); await shows('is no JSON');")
        .await;

    // What is published comes live, while it is paused, too; and what is gone is told as a gap.
    shown.at("#/topic/orders/live", "Live; 0 came").await;
    shown.does("await shows('1 live reader on this node'); await shows(' 0 a second');").await;
    shown.publish("orders", r#""first""#).await;
    shown.does("await shows('\"first\"'); await press('Pause');").await;
    shown.publish("orders", r#""second""#).await;
    shown.does("await shows('Paused; 1 wait'); await hides('\"second\"'); await press('Go on'); await shows('\"second\"');").await;
    // The tail stands among what is open, and comes again when it is ended.
    let open = shown.asks("GET", "/api/v1/admin/sessions", Value::Null).await;
    let session = &open["sessions"][0];
    let found = (
        &open["count"],
        &session["kind"],
        &session["caller"],
        &session["topics"],
        &session["behind_seconds"],
    );
    assert_eq!(
        found,
        (&json!(1), &json!("stream"), &json!("user \"root\""), &json!(1), &json!(0.0)),
        "{open}"
    );
    let path = format!("/api/v1/admin/sessions/{}", session["session"].as_str().expect("a session"));
    shown.asks("DELETE", &path, Value::Null).await;
    shown.does("await shows('connecting again');").await;
    shown.publish("orders", r#""third""#).await;
    shown.does("await shows('\"third\"');").await;
    shown.asks("POST", "/api/v1/topics/orders/trim", json!({ "keep": 1 })).await;
    shown.at("#/topic/orders?after=0-0", "Gap: 3 messages").await;
    shown.does("await shows('were trimmed');").await;

    shown
        .does("location.hash = '#/topic/orders/settings'; await fill('Messages that are kept', '7'); await press('Change it'); await shows('Changed.');")
        .await;
    let about = shown.asks("GET", "/api/v1/topics/orders", Value::Null).await;
    assert_eq!(
        (&about["max_messages"], &about["description"]),
        (&json!(7), &json!("<b>of the shop")),
        "{about}"
    );
    // It is deleted once its name was typed, and not before.
    shown
        .does("await press('Delete'); await until('it can be pressed', () => document.querySelector('dialog button[value=yes]').disabled); await fill('Type orders to go on', 'orders'); await press('Delete it'); await shows('There is no topic');")
        .await;
    let topics = shown.asks("GET", "/api/v1/topics", Value::Null).await;
    assert_eq!(topics, json!([]));
    shown.does("document.querySelector('.who button').click(); await shows('Or with a token');").await;
    shown.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_life_of_a_dead_letter() {
    let Some(mut shown) = Shown::open().await else { return };
    shown.asks("PUT", "/api/v1/topics/jobs/groups/workers", json!({})).await;
    shown.publish("jobs", r#""do it""#).await;
    let claim = json!({ "consumer": "c", "max": 1 });
    let claimed = shown.asks("POST", "/api/v1/topics/jobs/groups/workers/claim", claim.clone()).await;
    let receipt = &claimed["messages"][0]["receipt"];
    shown
        .asks("POST", "/api/v1/work/reject", json!({ "receipts": [receipt], "reason": "no such customer" }))
        .await;
    shown.log_in("root").await;
    shown.at("#/topic/jobs/groups", "workers").await;
    shown.does("await press('workers'); await shows('no such customer'); await shows('\"do it\"');").await;
    shown.does("await press('Work on it again'); await shows('There is none.');").await;
    let claimed = shown.asks("POST", "/api/v1/topics/jobs/groups/workers/claim", claim.clone()).await;
    assert_eq!(claimed["messages"][0]["payload"], "do it", "{claimed}");
    shown.does("await shows('Who has messages');").await;
    shown.does("await press('Pause'); await shows('Paused: nothing is given out');").await;
    shown.publish("jobs", r#""later""#).await;
    let claimed = shown.asks("POST", "/api/v1/topics/jobs/groups/workers/claim", claim).await;
    assert_eq!(claimed["messages"], json!([]));
    shown.does("await press('Go on'); await shows('Gives messages out');").await;
    shown
        .does("await press('Delete the group'); await fill('Type workers to go on', 'workers'); await press('Delete it'); await shows('No group works on this topic');")
        .await;
    shown.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_is_told_and_nothing_live_is_missed() {
    let Some(mut shown) = Shown::open().await else { return };
    shown.publish("t", r#""zero""#).await;
    shown.log_in("root").await;
    shown.at("#/topic/t/live", "Live; 0 came").await;
    shown.publish("t", r#""one""#).await;
    shown.does("await shows('\"one\"');").await;
    shown.proxy.refuse(true);
    shown.proxy.cut();
    shown.does("await shows('The connection broke'); await until('it says so', () => document.querySelector('.link-state').checkVisibility());").await;
    shown.publish("t", r#""two""#).await;
    shown.publish("t", r#""three""#).await;
    shown.proxy.refuse(false);
    shown.does("await shows('\"three\"'); await shows('\"two\"'); await until('it is well', () => document.querySelector('.link-state').hidden);").await;
    let rows = "[...document.querySelectorAll('.message pre')].map(row => row.textContent)";
    assert_eq!(shown.tools.run(rows).await, json!([r#""three""#, r#""two""#, r#""one""#]));
    // What is gone by the time it comes back stands there as a gap.
    shown.proxy.refuse(true);
    shown.proxy.cut();
    shown.does("await shows('The connection broke');").await;
    // More than a node holds of the newest; and another reader has come to its end, so that it holds those.
    let headers = format!("authorization: {}\r\n", shown.root);
    let other =
        Stream::open(shown.relay.address, "/api/v1/topics/t/messages", "application/x-ndjson", &headers);
    let mut other = other.await.expect("it is let in");
    let many = vec![json!({ "topic": "t", "payload": "four" }); 700];
    for _ in 0..2 {
        shown.asks("POST", "/api/v1/messages/bulk", json!({ "messages": many })).await;
    }
    shown.publish("t", r#""five""#).await;
    other.until(br#""five""#).await.expect("it comes");
    drop(other);
    shown.asks("POST", "/api/v1/topics/t/trim", json!({ "keep": 1 })).await;
    shown.proxy.refuse(false);
    shown
        .does("await shows('\"five\"'); await shows('Gap: Messages between'); await shows('were trimmed');")
        .await;
    let rows = "[...document.querySelectorAll('.message pre')].map(row => row.textContent).slice(0, 2)";
    assert_eq!(shown.tools.run(rows).await, json!([r#""five""#, r#""three""#]));
    shown.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_can_be_read_in_both_schemes_and_on_a_phone() {
    let Some(mut shown) = Shown::open().await else { return };
    let long = "a-topic-with-a-name-that-is-longer-than-the-screen-of-a-phone.".repeat(3) + "end";
    shown.publish(&long, &json!({ "text": "x".repeat(500) }).to_string()).await;
    shown.asks("PUT", &format!("/api/v1/topics/{long}/groups/workers"), json!({})).await;
    shown.asks("PUT", "/api/v1/keys/flows/a", json!({ "step": 1 })).await;
    shown.asks("PUT", &format!("/api/v1/keys/flows/{}?ttl=1h", "k".repeat(255)), json!({ "step": 1 })).await;
    shown.asks("POST", "/api/v1/locks/nightly", json!({ "holder": "worker-7", "ttl": "1h" })).await;
    shown.asks("PUT", "/api/v1/presence/lobby/ann", json!({ "mood": "fine" })).await;
    shown
        .asks("POST", "/api/v1/tokens", json!({ "name": "till-7", "rules": ["allow publish orders.*"] }))
        .await;
    let topic = |tab: &str| format!("#/topic/{long}{tab}");
    let pages = [
        ("#/".to_owned(), "Memory of the storage"),
        ("#/topics".to_owned(), "Make a topic"),
        (topic(""), "As it was kept"),
        (topic("/live"), "Live; 0 came"),
        (topic("/publish"), "Publish a message"),
        (topic("/groups"), "workers"),
        (topic("/later"), "Nothing waits"),
        (topic("/settings"), "What it keeps"),
        (format!("#/group/{long}/workers"), "Dead letters"),
        ("#/groups".to_owned(), "workers"),
        ("#/keys".to_owned(), "flows"),
        ("#/keys/flows".to_owned(), "Changes"),
        ("#/keys/nothing".to_owned(), "made with its first key"),
        ("#/keys/flows/a".to_owned(), "Revision"),
        (format!("#/keys/flows/{}", "k".repeat(255)), "Revision"),
        ("#/locks/nightly".to_owned(), "worker-7"),
        ("#/presence/lobby".to_owned(), "ann"),
        ("#/sessions".to_owned(), "which has answered"),
        ("#/nodes".to_owned(), "has answered"),
        ("#/slow".to_owned(), "which has answered"),
        ("#/access".to_owned(), "till-7"),
        ("#/topic/nowhere".to_owned(), "There is no such topic"),
        ("#/group/nowhere/none".to_owned(), "topic_not_found"),
        ("#/nowhere".to_owned(), "There is no such page"),
    ];
    for (width, scheme) in [(1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")] {
        shown.tools.emulate(width, scheme).await;
        let at_log_in = shown.tools.run(LOOKS).await;
        assert_eq!((&at_log_in["pale"], &at_log_in["wide"]), (&json!([]), &json!(0)), "{width} {scheme}");
        if width == 1280 && scheme == "light" {
            shown.log_in("root").await;
        }
        for (page, text) in &pages {
            shown.at(page, text).await;
            let looks = shown.tools.run(LOOKS).await;
            assert!(looks["looked"].as_u64() > Some(8), "{page}: {looks}");
            let found = (&looks["pale"], &looks["nameless"], &looks["broken"], &looks["wide"]);
            let well = (&json!([]), &json!([]), &json!([]), &json!(0));
            assert_eq!(found, well, "{page} at {width} in {scheme}");
        }
    }
    shown.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_do_little_sees_that_and_a_token_lets_in_as_well() {
    let Some(mut shown) = Shown::open().await else { return };
    user(&shown.relay, "ann", &["read"]).await;
    shown.publish("t", r#""one""#).await;
    shown.log_in("ann").await;
    shown.does("await shows('Administrators see more');").await;
    shown.at("#/topic/t", r#""one""#).await;
    shown
        .does("location.hash = '#/topic/t/publish'; await fill('Payload', '1'); await press('Publish'); await shows('forbidden');")
        .await;
    shown.at("#/access", "forbidden").await;
    let made = shown.asks("POST", "/api/v1/tokens", json!({ "name": "t", "rules": ["allow read t"] })).await;
    let token = &made["token"];
    shown.does("document.querySelector('.who button').click(); await shows('Or with a token');").await;
    shown
        .does(
            "await fill('Token', 'tm_wrong'); await press('Use the token'); await shows('unauthenticated');",
        )
        .await;
    shown
        .does(&format!(
            "await fill('Token', {token}); await press('Use the token'); await shows('Who may do what');"
        ))
        .await;
    shown.at("#/topic/t", r#""one""#).await;
    shown.at("#/topic/t/live", "Live; 0 came").await;
    // A token that is revoked meanwhile leads back to the log-in.
    let id = made["token_id"].as_str().expect("an id");
    shown.asks("DELETE", &format!("/api/v1/tokens/{id}"), Value::Null).await;
    shown.does("location.hash = '#/topics'; await shows('The log-in is over');").await;
    assert_eq!(shown.url, shown.tools.run("location.href.split('#')[0]").await.as_str().unwrap_or_default());
    shown.close().await;
}

/// Opens the console at an address; `None` where there is no browser.
async fn open_at(url: &str) -> Option<(Browser, Tools)> {
    // Nobody has signed the certificates of tests.
    let browser = open(find()?, "about:blank", &["--ignore-certificate-errors"]);
    let mut tools = Tools::open(&browser).await;
    tools.run_first(HANDS).await;
    tools.go(url).await;
    Some((browser, tools))
}

/// Looks at the overview of an open relay, which shows all of this.
pub(crate) async fn overview_shows(base: &str, texts: &[&str]) {
    let Some((_browser, mut tools)) = open_at(&format!("{base}/console/")).await else { return };
    for text in texts {
        tools.run(&format!("shows({})", json!(text))).await;
    }
    assert_eq!(tools.run("wrong").await, json!([]));
}

/// Uses the console of a closed relay at this address: logs in, publishes, and follows what comes.
pub(crate) async fn is_used_at(url: &str) {
    let Some((_browser, mut tools)) = open_at(url).await else { return };
    tools
        .run(
            r#"(async () => {
                await shows('Log in'); await fill('Name', 'root'); await fill('Password', 'correct horse');
                await press('Log in'); await shows('Memory of the storage');
                location.hash = '#/topic/t/publish'; await fill('Payload', '"one"'); await press('Publish');
                await shows('Kept as');
                location.hash = '#/topic/t/live'; await shows('Live; 0 came');
                location.hash = '#/topic/t'; await shows('"one"');
            })()"#,
        )
        .await;
    let there = tools.run("location.href").await;
    assert_eq!((there, tools.run("wrong").await), (json!(format!("{url}#/topic/t")), json!([])));
}

/// Signs in at the console of the relay at this address with the provider `one`, which takes everybody for who they say
/// they are.
pub(crate) async fn is_signed_in_at(public: &str) {
    let url = format!("{public}/console/");
    let Some((_browser, mut tools)) = open_at(&url).await else { return };
    // What runs while the browser goes elsewhere has no answer.
    tools.run("shows('Sign in with one').then(() => { press('Sign in with one'); })").await;
    for (prompt, more) in
        [("login", "form.elements.login.value = 'ann'; form.elements.password.value = 'x';"), ("consent", "")]
    {
        let asks = format!("document.querySelector('input[name=prompt][value={prompt}]')");
        tools.comes_to(&format!("String(!!{asks})"), "true").await;
        tools
            .run(&format!(
                "(() => {{ const {{ form }} = {asks}; {more} setTimeout(() => form.submit()); }})()"
            ))
            .await;
    }
    let shown =
        "location.href.split('#')[0] + ' ' + document.querySelector('.who')?.textContent.includes('ann')";
    tools.comes_to(shown, &format!("{url} true")).await;
}
