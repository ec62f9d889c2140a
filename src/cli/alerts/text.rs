//! A replay for people.

use std::time::Duration;

use chrono::SecondsFormat;

use crate::{
    config::units,
    events::replay::{Counts, Quantiles, Replay, Summary, Transition},
    plural::plural,
};

/// A line a transition, then a line an alert.
pub fn of(replay: &Replay) -> String {
    let transitions = replay.transitions.iter().map(transition);
    transitions.chain(replay.alerts.iter().map(summary)).collect()
}

fn transition(Transition { time, camera, alert, on, probability }: &Transition) -> String {
    let time = time.to_rfc3339_opts(SecondsFormat::Millis, true);
    format!("{time} {camera} {alert} {} {probability:.2}\n", if *on { "ON" } else { "OFF" })
}

fn summary(alert: &Summary) -> String {
    let Summary { camera, alert: name, answered, unsure, unanswered, .. } = alert;
    let on_for = units::format_duration(Duration::from_millis((alert.seconds_on * 1000.0).round() as u64));
    let still_on = if alert.still_on { ", still on at the end" } else { "" };
    let probability = match alert.probability {
        Some(Quantiles { min, lower_quartile, median, upper_quartile, max }) => format!(
            "; probability min {min:.2}, 25 % {lower_quartile:.2}, median {median:.2}, 75 % {upper_quartile:.2}, max {max:.2}"
        ),
        None => String::new(),
    };
    let unsure = match unsure {
        0 => String::new(),
        n => format!(" ({n} below min_confidence)"),
    };
    format!(
        "{camera} {name}: on {}, {on_for} in all{still_on}{probability}; {}{unsure}, no answer in {}\n",
        plural(alert.times_on, "time"),
        plural(answered, "answer"),
        plural(unanswered, "event")
    )
}

/// What could not be judged, a line each.
pub fn notes(counts: &Counts) -> Vec<String> {
    let Counts { judged, doubled, without_answers, without_alerts, unknown_cameras } = counts;
    let mut notes = vec![format!("judged: {}", plural(judged, "event"))];
    let mut note = |count: usize, what: &str| {
        if count > 0 {
            notes.push(format!("{}: {what}", plural(count, "event")));
        }
    };
    note(*doubled, "left out, because they were there before");
    note(*without_answers, "without any answer");
    note(*without_alerts, "left out, because their cameras have no alerts");
    let names: Vec<&str> = unknown_cameras.keys().map(|camera| camera.as_str()).collect();
    let unknown =
        format!("left out, because the configuration does not have their cameras: {}", names.join(", "));
    note(unknown_cameras.values().sum(), &unknown);
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_is_told_in_a_line() {
        let quantiles =
            Quantiles { min: 0.0, lower_quartile: 0.25, median: 0.5, upper_quartile: 0.75, max: 1.0 };
        let alert = Summary {
            camera: "porch".parse().unwrap(),
            alert: "open".into(),
            times_on: 1,
            seconds_on: 90.5,
            still_on: true,
            answered: 3,
            unsure: 1,
            unanswered: 0,
            probability: Some(quantiles),
        };
        assert_eq!(
            summary(&alert),
            "porch open: on 1 time, 1m30s500ms in all, still on at the end; probability min 0.00, 25 % 0.25, median 0.50, \
             75 % 0.75, max 1.00; 3 answers (1 below min_confidence), no answer in 0 events\n"
        );
        let none = Summary {
            times_on: 0,
            seconds_on: 0.0,
            still_on: false,
            answered: 0,
            unsure: 0,
            probability: None,
            ..alert
        };
        assert_eq!(summary(&none), "porch open: on 0 times, 0s in all; 0 answers, no answer in 0 events\n");
    }
}
