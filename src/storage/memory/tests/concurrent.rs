//! Many at work at one time.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_work_keeps_the_books_straight() {
    let setup = Arc::new(setup(MIB, WhenFull::TrimLargest));
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..8_usize {
        let setup = setup.clone();
        tasks.spawn(async move {
            for round in 0..500_usize {
                let name = format!("t{}", (worker + round) % 5);
                match round % 50 {
                    7 => drop(setup.memory.delete(&topic(&name)).await),
                    13 => drop(setup.memory.trim(&topic(&name), Trim::Keep(20)).await),
                    19 | 37 => drop(setup.append(keyed(&name, round)).await),
                    _ => drop(setup.append(message(&name, vec![b'1'; 700])).await),
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert!(setup.memory.bytes() <= MIB);
    for topic in setup.memory.list(Selection::default(), None, 10).await.unwrap().topics {
        setup.memory.delete(&topic.topic_name).await.unwrap();
    }
    assert_eq!((setup.memory.bytes(), setup.memory.keys_bytes()), (0, 0));
    assert_eq!(setup.memory.stats().await.unwrap(), TopicsStats { total_topics: 0, total_messages: 0 });
}
