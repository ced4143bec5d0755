//! The storage contract as tests: every promise of `storage.rs` once, stamped for every backend.
//!
//! A property is a plain `async fn(&Ground)` that uses fresh topics and never flushes. A bug found in
//! a backend adds a property here. What a backend promises beyond the contract is tested beside it.
//!
//! Long because: it is one list, of what is promised.

use crate::support::ground::Ground;

mod access;
mod at_once;
mod buckets;
mod conditional;
mod copied_buckets;
mod copied_groups;
mod copying;
mod digests;
mod expiring;
mod expiry;
mod fences;
mod filled;
#[cfg(feature = "valkey")]
mod foreign;
mod gaps;
#[cfg(feature = "valkey")]
mod held;
mod idempotency;
mod kept;
mod latest;
mod leases;
mod limits;
mod listed;
mod live;
mod locks;
mod logged;
mod messages;
mod nodes;
mod numbers;
mod ordering;
#[cfg(feature = "valkey")]
mod parts;
mod passed;
mod reading;
mod records;
mod recurring;
mod removing;
mod retention;
mod room;
mod runs;
mod schedules;
mod series;
mod taken;
mod takes;
mod tickets;
mod topics;
mod trimming;
mod uniqueness;
mod unmade;
mod work;
mod worked;

#[cfg(feature = "valkey")]
pub(crate) use digests::damage;

/// Makes a test of every property on one kind of ground; without that ground it has said so.
macro_rules! stamp {
    ($ground:expr; $($room:ident: $($name:ident),+;)+) => {
        use super::*;

        $($(
            #[tokio::test]
            async fn $name() {
                if let Some(ground) = $ground.await {
                    $room::$name(&ground).await;
                }
            }
        )+)+
    };
}

macro_rules! conformance {
    (
        every backend { $($every:tt)* }
        backends with a server { $($server:tt)* }
        a backend for a cluster { $($cluster:tt)* }
    ) => {
        mod memory {
            stamp! { Ground::memory(); $($every)* }
        }

        #[cfg(feature = "valkey")]
        mod valkey {
            stamp! { Ground::on(crate::support::server::Kind::Valkey); $($every)* $($server)* }
        }

        #[cfg(feature = "valkey")]
        mod braces {
            stamp! { Ground::with_braces(); $($every)* $($cluster)* }
        }

        #[cfg(feature = "valkey")]
        mod cluster {
            stamp! { Ground::in_cluster(); $($every)* }
        }

        #[cfg(feature = "valkey")]
        mod placed {
            stamp! { Ground::placed(); $($every)* }
        }

        #[cfg(feature = "valkey")]
        mod redis {
            stamp! { Ground::on(crate::support::server::Kind::Redis); $($every)* $($server)* }
        }
    };
}

conformance! {
    every backend {
        access:
            documents_are_told_once_for_each_revision,
            documents_change_together_and_only_for_who_knows_them,
            of_changes_at_one_time_one_is_made;
        copying:
            a_copy_is_read_as_what_it_is_a_copy_of,
            a_topic_that_is_frozen_takes_no_message_and_is_read,
            what_is_taken_over_is_gone_on_with_from_where_it_is,
            runs_are_copied_with_their_ends,
            an_empty_topic_and_an_emptied_one_are_copied,
            no_topics_are_made_while_that_is_refused,
            what_the_other_one_has_lost_is_told_by_the_copy,
            nothing_is_taken_over_where_no_topics_are_made,
            a_storage_says_who_it_is_whoever_asks;
        copied_buckets:
            a_bucket_is_copied_with_its_revisions_and_its_log,
            keys_that_are_over_expire_at_the_copy,
            a_bucket_that_is_frozen_is_read_and_not_changed,
            a_bucket_that_is_taken_over_is_gone_on_with,
            no_buckets_are_made_while_that_is_refused;
        copied_groups:
            a_group_is_copied_with_all_that_is_not_done,
            the_order_of_keys_is_that_of_the_group_that_was_copied,
            unique_keys_are_copied_while_their_messages_are_not_done,
            what_a_group_knows_is_told_page_by_page,
            what_a_group_has_taken_over_is_not_taken_over_again,
            a_group_that_begins_at_a_frozen_topic_gets_what_comes_later,
            what_waits_for_later_is_copied_and_comes_once;
        nodes:
            a_node_is_listed_as_it_has_said_last_until_it_goes,
            a_node_that_says_nothing_more_is_forgotten;
        records:
            what_has_changed_of_the_records_is_told_and_nothing_else,
            records_change_together_and_only_as_expected,
            who_has_missed_many_changes_is_told_of_all_records,
            of_changes_of_one_record_one_is_made_and_those_of_others_do_not_disturb;
        latest:
            the_latest_of_each_key_is_there_however_short_the_log,
            who_is_behind_is_told_that_what_is_gone_was_compacted,
            what_is_deleted_or_trimmed_by_request_is_not_among_the_latest,
            a_topic_is_compacted_from_when_it_says_so_and_by_what,
            there_are_as_many_latest_as_the_topic_keeps_messages,
            what_nobody_has_looked_at_is_trimmed_all_the_same,
            what_has_expired_is_the_latest_and_is_not_returned,
            a_copy_has_the_latest_that_the_log_has_no_more,
            a_key_of_which_there_is_nothing_has_nothing_at_the_copy;
        kept:
            what_topics_keep_is_told_about_by_their_names;
        limits:
            however_many_draw_no_more_is_granted_than_the_rate,
            what_comes_back_is_granted_again_and_once,
            what_was_granted_counts_for_its_time_and_no_longer,
            places_are_held_by_nodes_and_never_more_than_there_are;
        takes:
            however_many_take_no_more_passes_than_a_burst,
            of_several_policies_all_are_charged_or_none,
            what_is_given_back_is_there_again_and_no_more_than_a_burst,
            a_look_takes_nothing,
            who_waits_as_long_as_it_is_told_passes,
            what_is_owed_is_exact_to_the_part,
            a_limit_has_a_bound_of_policies;
        series:
            points_are_in_their_minutes,
            points_out_of_bounds_are_told_and_not_added,
            however_many_add_every_point_is_there_once,
            series_come_to_the_same_bits_as_the_model,
            a_series_that_is_deleted_begins_anew,
            series_are_named_in_order_for_as_long_as_they_are_there;
        tickets:
            a_ticket_opens_one_thing_and_then_resumes_that,
            of_many_who_open_with_one_ticket_one_does,
            tickets_end_in_time_and_a_maker_s_oldest_goes;
        locks:
            a_lock_has_one_holder_until_it_is_released,
            a_lock_is_held_for_its_time_and_no_longer,
            who_came_first_has_it_next_in_the_step_that_gives_it_back,
            who_waits_has_it_when_the_time_of_the_holder_is_over,
            what_is_handed_to_somebody_who_has_gone_passes_on,
            a_key_finds_what_was_granted_under_it,
            a_lock_is_taken_away_from_who_holds_it,
            of_many_who_ask_at_one_time_each_has_it_once_alone,
            a_lock_that_guards_a_topic_lets_its_holder_alone_append,
            of_a_lock_that_guards_nothing_the_greatest_fence_counts,
            every_lock_that_is_held_is_in_some_part_of_the_list;
        leases:
            a_lease_lasts_until_it_is_ended_or_not_renewed_in_time,
            a_thing_is_under_a_lease_once_and_leaves_it_as_it_is_named,
            a_lease_keeps_so_many_things_and_no_more,
            keys_are_given_time_where_they_have_their_revision;
        fences:
            a_lock_that_guards_a_bucket_lets_its_holder_alone_change_its_keys,
            a_used_key_wins_over_a_fence,
            of_a_lock_that_guards_nothing_the_greatest_fence_that_a_bucket_has_seen_counts,
            what_is_refused_has_shown_no_fence,
            fences_grow_whatever_ends_a_lock,
            locks_of_one_name_that_guard_something_else_are_others,
            as_many_wait_as_may_and_no_more;
        messages:
            ids_increase_in_the_order_of_appends,
            ids_increase_after_a_trim_to_nothing,
            bodies_come_back_byte_for_byte,
            bodies_of_a_mebibyte_come_back_byte_for_byte,
            each_message_of_a_batch_succeeds_or_fails_alone,
            a_batch_keeps_the_order_of_each_topic,
            appends_that_begin_in_order_are_kept_in_order,
            an_empty_batch_has_no_results,
            an_append_creates_its_topic_only_if_asked,
            concurrent_first_appends_share_one_topic,
            concurrent_appends_lose_nothing_and_all_readers_agree,
            a_topic_keeps_at_least_its_newest_messages,
            a_policy_holds_for_the_topics_that_it_travels_with,
            a_policy_by_age_leaves_none_that_is_older,
            a_policy_by_bytes_keeps_at_least_the_newest;
        conditional:
            a_message_follows_the_last_one_or_is_refused,
            of_many_that_follow_the_same_message_one_is_kept,
            what_was_given_counts_and_not_what_is_left,
            messages_of_a_batch_see_those_before_them,
            a_refused_message_makes_no_topic_and_leaves_its_key,
            a_used_key_wins_over_the_condition;
        reading:
            ascending_pages_cover_the_topic,
            descending_pages_cover_the_topic_backwards,
            a_read_goes_on_after_ids_that_are_not_kept,
            a_page_of_a_thousand_is_whole,
            bytes_end_a_page_early_but_never_before_the_first_message,
            the_end_has_no_next,
            a_topic_without_messages_reads_empty,
            reading_creates_no_topic,
            a_message_is_found_by_its_id;
        gaps:
            a_reader_behind_a_trim_is_told,
            what_was_deleted_by_request_in_front_of_the_oldest_is_no_gap,
            a_cursor_that_is_kept_has_no_gap,
            nothing_is_told_where_nothing_can_be_missing,
            who_was_passed_over_is_told_what_went_with_an_earlier_topic,
            who_counts_is_told_how_many_are_missing,
            a_cursor_that_was_never_given_begins_anew,
            only_the_first_page_after_a_hole_tells_it,
            a_reader_of_an_emptied_topic_is_told,
            a_reader_of_a_deleted_topic_is_told,
            a_reader_of_a_new_topic_of_the_name_is_told_once,
            who_was_there_before_the_first_message_is_told,
            a_reader_overtaken_by_the_limit_is_told,
            a_cursor_past_the_end_is_reset;
        live:
            a_tail_tells_the_newest_end,
            a_tail_survives_what_removes_messages,
            a_tail_tells_from_which_id_on_its_topic_gives_them,
            news_names_the_topics_with_later_messages,
            what_a_node_changes_itself_is_told_before_it_is_answered,
            a_read_tells_how_far_it_looked;
        expiry:
            an_expired_message_is_never_returned,
            a_message_is_returned_until_it_expires,
            pages_step_over_expired_messages,
            a_long_run_of_expired_messages_is_crossed,
            expired_messages_count_until_they_are_removed;
        retention:
            what_a_topic_says_itself_wins_over_what_appends_say,
            a_part_of_a_description_is_changed_alone,
            bytes_bound_a_topic_about,
            what_a_group_has_not_acknowledged_is_held_back_up_to_a_bound,
            a_sweep_removes_what_a_topic_does_not_keep_any_more,
            age_takes_what_a_group_has_not_acknowledged_later;
        room:
            a_topic_that_refuses_keeps_what_it_has,
            a_topic_refuses_by_what_comes_with_appends_and_by_bytes,
            what_is_due_waits_until_its_topic_has_room,
            what_was_acknowledged_before_makes_room,
            messages_are_removed_once_every_group_has_acknowledged_them,
            what_is_acknowledged_makes_room_at_once,
            a_topic_that_is_not_used_is_removed;
        passed:
            what_is_trimmed_before_a_group_got_it_is_counted,
            what_was_given_out_and_is_gone_is_counted_when_it_should_come_again,
            messages_deleted_ahead_of_a_group_are_counted,
            what_lies_before_the_start_of_a_group_is_not_gone_for_it,
            a_claim_that_leaves_nothing_says_so;
        runs:
            a_topic_that_has_ended_takes_no_message_and_keeps_what_it_has,
            a_topic_ends_once_and_one_that_is_cancelled_can_be_closed,
            nothing_is_appended_once_a_topic_has_ended,
            a_used_key_is_answered_behind_the_end,
            claims_of_a_cancelled_topic_say_why,
            what_reads_a_topic_is_told_of_its_end_and_of_nothing_else,
            a_topic_that_is_made_anew_takes_messages,
            who_listens_is_told_of_an_end;
        trimming:
            keep_removes_all_but_the_newest,
            before_removes_all_smaller_ids,
            trims_of_a_missing_topic_are_refused,
            a_sweep_removes_what_is_older_than_the_topics_own_retention,
            a_sweep_removes_what_is_older_than_the_common_retention;
        idempotency:
            a_repeat_returns_the_first_answer,
            a_repeat_within_a_batch_returns_the_first_answer,
            overlapping_repeats_leave_one_copy,
            a_key_with_another_message_is_refused,
            a_key_that_was_used_is_known_whatever_can_be_reached_now,
            a_key_belongs_to_its_topic,
            a_key_is_forgotten_after_the_window,
            a_key_outlives_its_message,
            a_key_does_not_outlive_its_topic,
            a_refused_append_remembers_no_key,
            messages_with_and_without_key_keep_their_order;
        schedules:
            a_message_for_later_is_published_once_it_is_due,
            what_is_due_is_published_in_its_order,
            what_waits_is_listed_in_pages,
            a_message_that_is_cancelled_is_never_published,
            a_message_that_waits_is_published_now_on_request,
            a_time_to_live_counts_from_the_delivery,
            a_repeat_of_a_message_for_later_returns_the_first_answer,
            however_many_nodes_look_each_message_is_published_once,
            what_waits_goes_with_its_topic,
            schedules_past_the_limit_are_refused,
            a_message_for_later_creates_its_topic_only_if_asked,
            topics_in_which_something_is_due_are_told,
            readers_are_told_of_what_is_published_when_it_is_due,
            what_is_published_when_it_is_due_trims_its_topic,
            a_group_is_told_how_many_messages_wait_for_later;
        recurring:
            a_recurring_message_is_planted_anew_with_each_that_is_published,
            a_recurring_message_is_replaced_and_removed,
            what_a_recurring_message_has_missed_is_not_made_up_for,
            however_many_nodes_look_a_recurring_message_comes_once,
            a_recurring_message_that_never_comes_again_stays_without_a_time,
            recurring_messages_past_the_limit_are_refused;
        removing:
            a_message_that_is_deleted_is_gone_and_missed_by_nobody,
            who_counts_counts_on_over_what_is_deleted,
            what_was_deleted_is_missed_by_nobody_behind_a_sweep_either,
            an_emptied_topic_goes_on_behind_what_was_deleted;
        topics:
            a_created_topic_is_described,
            a_topic_is_created_once,
            a_topic_keeps_who_made_it,
            of_concurrent_creates_one_succeeds,
            topics_are_listed_by_name_in_pages,
            a_list_is_narrowed_to_what_is_selected,
            a_page_of_which_little_is_selected_ends,
            names_are_told_by_their_begin_in_pages,
            a_description_tells_what_the_topic_holds,
            an_update_replaces_the_description,
            a_deleted_topic_is_gone_with_its_messages,
            a_topic_made_again_gives_new_ids,
            topics_and_messages_are_counted,
            topics_past_the_limit_are_refused,
            a_backend_tells_how_it_is,
            a_backend_is_looked_at_and_closed;
        work:
            a_group_begins_where_it_is_told_and_is_described,
            each_message_is_with_one_consumer_at_a_time,
            who_has_most_messages_is_told_with_how_many,
            what_is_acknowledged_is_done_with_its_result,
            what_has_failed_comes_again_in_its_time_and_then_dies,
            what_is_rejected_dies_and_can_be_brought_back,
            a_lost_consumer_is_charged_with_the_oldest_alone,
            a_late_answer_counts_as_long_as_nobody_else_has_the_message,
            a_consumer_has_a_message_for_as_long_as_it_may,
            what_is_given_back_has_not_failed,
            a_consumer_that_is_said_to_be_lost_may_still_answer,
            a_repeated_claim_returns_what_is_held,
            no_more_are_held_than_may_be_and_none_while_it_is_paused,
            a_seek_makes_all_earlier_deliveries_void,
            messages_that_are_gone_are_passed_over_and_counted,
            an_expired_lease_is_found_among_many_that_live,
            what_weighs_much_comes_in_several_claims,
            a_sweep_tells_what_groups_have_and_where_messages_are_dying,
            what_the_groups_of_several_topics_have_is_told_at_once,
            what_is_dying_can_be_brought_back_or_forgotten,
            it_is_told_why_a_message_waits;
        ordering:
            one_message_of_a_key_is_with_a_consumer_and_other_keys_go_on,
            a_key_keeps_its_order_through_what_becomes_of_its_messages,
            thousands_of_one_key_hold_nobody_up_and_no_more_stand_behind_than_may,
            what_is_gone_holds_no_key,
            a_trimmed_holder_hands_its_key_over_all_that_are_trimmed,
            a_message_that_is_brought_back_joins_its_key,
            the_ordering_changes_while_nothing_is_pending,
            a_seek_frees_all_keys;
        uniqueness:
            while_a_message_waits_or_is_worked_on_it_is_the_answer,
            a_message_that_is_over_is_no_answer,
            a_key_is_of_a_group_that_is_there,
            an_idempotency_key_wins_over_a_unique_one_and_that_over_a_condition,
            of_many_who_publish_under_a_key_one_is_kept;
        worked:
            whatever_consumers_do_no_message_is_lost_or_with_two;
        at_once:
            who_asks_at_once_is_answered_each_for_itself,
            large_values_that_are_read_at_once_all_come;
        buckets:
            what_is_put_comes_back_byte_for_byte,
            of_what_is_not_there_nothing_is_read_and_nothing_made,
            a_key_changes_only_under_its_condition,
            of_many_changes_under_one_revision_one_is_made,
            changes_are_made_all_or_none,
            changes_of_one_step_are_seen_together,
            a_repeat_of_changes_returns_the_first_answer,
            a_refused_change_leaves_its_idempotency_key;
        unmade:
            a_change_that_makes_no_key_makes_no_bucket,
            where_no_bucket_may_be_made_one_without_keys_answers_all_the_same;
        digests:
            a_value_has_the_digest_of_its_bytes_and_of_the_one_before,
            what_is_not_kept_or_added_to_has_no_digest;
        filled:
            of_all_who_ask_for_a_key_one_fills_it,
            a_token_fills_a_key_once,
            who_fills_too_late_has_no_effect,
            what_changes_a_key_meanwhile_takes_its_fill_away,
            a_stale_value_is_there_until_it_is_filled,
            the_end_of_a_key_is_not_that_of_its_fill,
            a_fill_makes_its_bucket_only_if_asked,
            a_fill_lives_by_how_often_its_key_was_read,
            reads_count_where_fills_live_by_them_and_nowhere_else;
        numbers:
            increments_are_exact_to_the_last_number,
            increments_keep_their_bounds,
            what_is_no_number_is_not_added_to,
            increments_of_many_add_up,
            an_increment_leaves_a_key_what_it_has_besides;
        expiring:
            a_key_whose_time_is_over_is_not_there,
            a_change_tells_when_its_key_expires,
            keys_expire_once_however_many_nodes_look,
            those_that_were_due_first_expire_first,
            buckets_in_which_a_key_expires_are_told,
            a_touch_gives_time_and_tells_nobody,
            the_times_of_a_bucket_hold_from_then_on,
            what_has_expired_is_told_to_who_listens;
        logged:
            the_log_tells_at_every_moment_how_the_table_came_to_be,
            whatever_becomes_of_keys_their_log_tells_it_once,
            who_listens_is_told_of_changes_before_they_are_answered,
            a_log_keeps_its_newest_changes_and_tells_who_is_behind,
            who_reads_on_from_a_revision_that_is_gone_is_told,
            a_bucket_that_is_made_again_is_another,
            the_log_of_a_bucket_is_no_topic,
            what_holds_for_topics_by_age_takes_nothing_from_a_bucket;
        listed:
            keys_are_listed_in_pages,
            bytes_end_a_page_of_keys_but_never_before_the_first,
            names_that_differ_little_are_kept_apart,
            earlier_revisions_are_kept_as_far_as_the_bucket_says,
            a_bucket_takes_no_more_than_it_may,
            keys_whose_time_is_over_take_no_room,
            all_keys_of_an_owner_are_revoked_and_no_others,
            buckets_are_described_and_listed,
            buckets_past_the_limit_are_refused,
            the_longest_names_are_names_like_others;
    }
    backends with a server {
        takes:
            nothing_is_left_of_limits_that_are_over,
            a_key_of_another_program_is_not_a_limit;
        series:
            minutes_that_are_over_are_trimmed_and_the_rest_expires,
            names_of_series_that_are_gone_go_with_the_next_sweep,
            a_key_of_another_program_is_not_a_series;
        locks:
            nothing_is_left_of_locks_and_limits_that_have_gone;
        leases:
            nothing_is_left_of_leases_that_have_gone,
            a_key_of_another_program_is_not_a_lease;
        ordering:
            workers_of_other_programs_are_not_bound_and_hold_no_key_for_ever;
        uniqueness:
            no_unique_key_is_left_of_a_message_that_is_over;
        retention:
            a_node_with_a_stale_policy_takes_nothing_from_what_others_hold,
            a_topic_that_many_nodes_append_to_is_trimmed,
            a_group_of_another_producer_holds_back_too,
            what_is_published_when_it_is_due_takes_nothing_from_what_is_held;
        room:
            a_node_learns_that_a_topic_refuses;
        passed:
            what_others_trim_and_delete_is_counted,
            what_others_read_for_a_group_is_not_gone;
        foreign:
            a_key_of_another_type_is_not_a_topic,
            a_topic_of_another_producer_is_a_topic,
            ids_that_do_not_follow_the_clock_are_noticed,
            fields_of_another_producer_become_the_payload,
            values_that_are_not_text_become_base64,
            names_that_are_not_text_stay_apart,
            entries_of_pulsar_relay_are_served_as_ours,
            what_was_deleted_by_request_is_of_one_stream,
            entries_that_are_almost_ours_are_foreign,
            ids_increase_after_an_entry_from_the_future,
            a_forgotten_script_changes_no_order;
        taken:
            a_foreign_description_is_named,
            a_foreign_idempotency_key_is_named,
            foreign_keys_beside_a_topic_are_named,
            a_foreign_index_is_named_and_topics_go_on,
            what_is_no_name_in_the_index_ends_no_page_of_names,
            a_topic_whose_ids_are_used_up_says_so,
            the_counts_agree_after_a_set_over_a_stream;
        logged:
            the_changes_of_other_nodes_are_told_to_who_watches;
        held:
            foreign_keys_of_a_bucket_are_named_and_left_alone,
            a_foreign_idempotency_key_of_a_bucket_is_named,
            a_bucket_whose_log_is_gone_is_there,
            nothing_is_left_of_buckets_that_are_deleted;
        digests:
            a_value_that_was_damaged_or_replaced_is_not_sound;
        filled:
            a_foreign_key_in_the_place_of_fills_is_named,
            nothing_is_left_of_fills_that_are_over,
            of_reads_those_are_kept_of_the_keys_that_are_read_most;
    }
    a backend for a cluster {
        parts:
            topics_of_all_parts_are_listed_in_order_page_by_page,
            a_part_of_another_program_is_named_and_topics_go_on,
            what_is_due_in_all_parts_is_told_by_when_it_is,
            buckets_and_series_of_all_parts_are_named_in_order,
            a_sweep_mends_each_part;
    }
}
