//! The console in a real browser: addresses that lead nowhere, a relay that is away, what has ended, and questions that
//! were wrong.

use serde_json::json;

use super::console::Shown;

/// Every page, and what it shows.
const PAGES: [(&str, &str); 15] = [
    ("#/", "Memory of the storage"),
    ("#/topics", "Make a topic"),
    ("#/topic/t", "As it was kept"),
    ("#/topic/t/live", "Live; 0 came"),
    ("#/topic/t/publish", "Publish a message"),
    ("#/topic/t/groups", "Make a group"),
    ("#/topic/t/later", "Nothing waits"),
    ("#/topic/t/settings", "What it keeps"),
    ("#/group/t/workers", "Dead letters"),
    ("#/keys/b", "Changes"),
    ("#/keys/b/k", "Put it"),
    ("#/locks/l", "Nobody holds it"),
    ("#/presence/lobby", "Nobody is there"),
    ("#/sessions", "which has answered"),
    ("#/access", "Make a token"),
];

/// Has nothing be answered as long as `sessionStorage.away` is set: no answer, or a proxy's.
const AWAY: &str = "{
    const asked = window.fetch;
    window.fetch = (...all) => (sessionStorage.away === 'proxy' ? Promise.resolve(new Response('<html>', { status: 502 }))
      : sessionStorage.away ? Promise.reject(new TypeError('away')) : asked(...all));
}";

async fn something(shown: &Shown) {
    shown.publish("t", r#""one""#).await;
    shown.asks("PUT", "/api/v1/topics/t/groups/workers", json!({})).await;
    shown.asks("PUT", "/api/v1/keys/b/k", json!(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_that_lead_nowhere_say_so() {
    let Some(mut shown) = Shown::open().await else { return };
    something(&shown).await;
    shown.log_in("root").await;
    let nowhere = [
        "#/nope",
        "#/topic",
        "#/topic/",
        "#/topic/%",
        "#/topic/t/nope",
        "#/topic/t/live/more",
        "#/group/t",
        "#/group/t/workers/more",
        "#/keys/b/k/more",
        "#/keys//k",
        "#/nodes/one",
    ];
    for page in nowhere {
        shown.at(page, "There is no such page").await;
    }
    shown.does("await press('To the overview'); await shows('Memory of the storage');").await;
    // A name that would mean a folder in a path asks for nothing.
    shown.at("#/topic/..", "is no name").await;
    // Cold, too.
    for page in ["#/topic/%", "#/nope"] {
        let url = format!("{}{page}", shown.url);
        shown.tools.go("about:blank").await;
        shown.tools.go(&url).await;
        shown.does("await shows('There is no such page');").await;
        assert_eq!(shown.tools.run("wrong").await, json!([]), "{page}");
    }
    shown.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_comes_by_itself_when_the_relay_is_back() {
    let Some(mut shown) = Shown::open().await else { return };
    something(&shown).await;
    shown.log_in("root").await;
    for (page, text) in PAGES {
        shown.proxy.refuse(true);
        shown.proxy.cut();
        shown.at(page, "It is asked again by itself").await;
        shown.proxy.refuse(false);
        shown.does(&format!("await shows({}); await until('it is well', () => document.querySelector('.link-state').hidden);", json!(text))).await;
        shown.does("await hides('asked again by itself');").await;
        // What was shown before stays, and it is asked for by itself whether the relay is there, whatever the page asks.
        shown.does("dispatchEvent(new Event('hashchange'));").await;
        shown.does(&format!("await shows({});", json!(text))).await;
    }
    // A page that asks nothing by itself learns that the relay is back.
    shown.at("#/keys/b/k", "Put it").await;
    shown.proxy.refuse(true);
    shown.proxy.cut();
    shown.does("await fill('Value', '2'); await press('Put it'); await shows('does not answer');").await;
    shown.does("await until('it says so', () => !document.querySelector('.link-state').hidden);").await;
    shown.proxy.refuse(false);
    shown.does("await until('it is well', () => document.querySelector('.link-state').hidden);").await;
    assert_eq!(shown.tools.run("document.querySelector('textarea').value").await, json!("2"));
    shown.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_console_that_is_opened_while_the_relay_is_away_comes_up_by_itself() {
    let Some(mut shown) = Shown::open().await else { return };
    something(&shown).await;
    shown.log_in("root").await;
    shown.tools.run_first(AWAY).await;
    for (away, page, text) in [("yes", "#/topic/t", "As it was kept"), ("proxy", "#/keys/b", "Changes")] {
        let url = format!("{}{page}", shown.url);
        shown.does(&format!("sessionStorage.away = '{away}'; location.hash = '{page}';")).await;
        // The browser answers once it has begun anew.
        shown.tools.run("setTimeout(() => location.reload()) && null").await;
        shown
            .tools
            .comes_to(
                "String(document.querySelector('main')?.innerText.includes('It is asked again by itself'))",
                "true",
            )
            .await;
        shown.does("delete sessionStorage.away;").await;
        shown.does(&format!("await shows({});", json!(text))).await;
        assert_eq!(shown.tools.run("location.href").await, json!(url));
    }
    shown.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_has_ended_is_followed_no_more() {
    let Some(mut shown) = Shown::open().await else { return };
    for (topic, end, body) in
        [("a", "close", json!({})), ("b", "cancel", json!({ "reason": "out of budget" }))]
    {
        shown.publish(topic, r#""one""#).await;
        if topic == "a" {
            shown.log_in("root").await;
        }
        let page = format!("#/topic/{topic}/live");
        shown.at(&page, "Live; 0 came").await;
        shown.publish(topic, r#""two""#).await;
        shown.does("await shows('Live; 1 came');").await;
        shown.asks("POST", &format!("/api/v1/topics/{topic}/{end}"), body).await;
        let state = if end == "close" { "closed" } else { "cancelled: out of budget" };
        let told = format!("The topic is {state}. It takes no messages any more.");
        let once = format!(
            "await shows('Ended; 1 came'); await shows({}); await shows('on this node, {state}');",
            json!(told)
        );
        shown.does(&once).await;
        // By the time the head of the page knows, it would have come back several times.
        let counted = "[document.querySelectorAll('.gap').length, document.querySelector('main').innerText.includes('connecting again'),
            performance.getEntriesByType('resource').filter(({ name }) => name.includes('/messages?')).length]";
        let found = shown.tools.run(counted).await;
        assert_eq!((&found[0], &found[1]), (&json!(1), &json!(false)), "{found}");
        // Opened anew, it says so once.
        shown.at("#/nodes", "has answered").await;
        shown.at(&page, &told).await;
        shown.does("await shows('Ended; 0 came');").await;
        assert_eq!(shown.tools.run("document.querySelectorAll('.gap').length").await, json!(1));
        shown.does("await press('Messages'); await shows('\"two\"');").await;
        shown.at(&format!("#/topic/{topic}/publish"), "it takes no messages any more").await;
    }
    shown.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_asked_for_wrongly_can_be_asked_for_again() {
    let Some(mut shown) = Shown::open().await else { return };
    something(&shown).await;
    shown.log_in("root").await;
    shown.at("#/topic/t", "As it was kept").await;
    shown.does("await fill('From a time, an id, or a time ago', 'yesterday'); await press('Go there'); await shows('invalid');").await;
    shown.does("await fill('From a time, an id, or a time ago', 'earliest'); await press('Go there'); await shows('\"one\"');").await;
    shown.at("#/topics", "Make a topic").await;
    shown.does("await fill('Names that begin so, or a pattern', 'no such/name'); await press('Search'); await shows('invalid');").await;
    shown.does("await fill('Names that begin so, or a pattern', 't'); await press('Search'); await shows('Make a topic');").await;
    shown.at("#/keys/b", "Changes").await;
    shown.does("await fill('Keys that begin so', 'no such/name'); await press('Search'); await shows('invalid');").await;
    shown.does("await fill('Keys that begin so', 'k'); await press('Search'); await shows('Changes');").await;
    // A role that is ready-made is not deleted: it gets its rules back.
    shown.asks("PUT", "/api/v1/roles/read", json!({ "rules": ["allow read t"] })).await;
    shown.asks("PUT", "/api/v1/roles/shop", json!({ "rules": ["allow read t"] })).await;
    shown.at("#/access", "shop").await;
    shown.does("const row = [...document.querySelectorAll('tr')].find(row => row.cells[0].innerText === 'read' && row.innerText.includes('allow read t')); row.querySelector('button').click(); await press('Reset it'); await until('it has its rules', () => ![...document.querySelectorAll('tr')].some(row => row.cells[0].innerText === 'read' && row.innerText.includes('allow read t')));").await;
    let deletes = "[...[...document.querySelectorAll('section')].find(card => card.querySelector('h2')?.textContent === 'Roles').querySelectorAll('tr')]
        .filter(row => row.innerText.includes('yes') && row.innerText.includes('Delete')).length";
    assert_eq!(shown.tools.run(deletes).await, json!(0));
    shown.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_comes_anew_stays_where_it_was_scrolled() {
    let Some(mut shown) = Shown::open().await else { return };
    shown.log_in("root").await;
    shown.tools.emulate(360, "light").await;
    shown.at("#/nodes", "has answered").await;
    let anew = "const at = () => document.querySelector('.scroll'); const old = at(); old.focus(); old.scrollLeft = 60;
        await until('it comes anew', () => at() !== old);";
    shown.does(anew).await;
    let found = "[document.querySelector('.scroll').scrollLeft, document.activeElement.className]";
    assert_eq!(shown.tools.run(found).await, json!([60, "scroll"]));
    shown.close().await;
}
