//! Labels are as likely as the reference finds them, in every number format and whatever else is asked.

use std::path::Path;

use camscribe::{
    answer::DescribeError,
    decision::Question,
    describe::{self, Describer, LoadOptions},
    device::{DeviceChoice, DtypeChoice},
    request::{Content, Request},
};

use crate::support::decisions::{Error, all_equal_the_reference, cases};

fn load(dtype: DtypeChoice) -> Box<dyn Describer> {
    let options = LoadOptions { device: DeviceChoice::Cpu, dtype, ..LoadOptions::default() };
    describe::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/shapes"), options).unwrap()
}

fn labels(model: &mut dyn Describer, request: Request) -> Vec<Vec<f32>> {
    model.answer(&[request], &mut |_, _| panic!("nothing is said")).unwrap().remove(0).unwrap().labels
}

#[test]
fn labels_are_as_likely_in_f32_as_the_reference_finds_them() {
    all_equal_the_reference(&mut *load(DtypeChoice::F32), &cases(), Error::F32);
}

#[test]
fn labels_are_nearly_as_likely_in_q8_as_the_reference_finds_them() {
    all_equal_the_reference(&mut *load(DtypeChoice::Q8), &cases(), Error::ROUNDED);
}

#[test]
fn labels_are_nearly_as_likely_in_bf16_as_the_reference_finds_them() {
    all_equal_the_reference(&mut *load(DtypeChoice::Bf16), &cases(), Error::ROUNDED);
}

#[test]
fn questions_and_a_description_are_answered_together() {
    let mut model = load(DtypeChoice::F32);
    let cases = cases();
    let case = cases.iter().find(|case| case.name == "video_yes_no").unwrap();
    let (request, question) = case.request();
    let described = Request { max_tokens: 40, ..request };
    let mut plain = described.clone();
    plain.messages[0].content.push(Content::Text("What happens?".into()));
    let both = Request { prompt: Some("What happens?".into()), questions: vec![question], ..described };
    let answers = model.answer(&[both, plain], &mut |_, _| ()).unwrap();
    let [both, plain] = answers.try_into().unwrap();
    let (both, plain) = (both.unwrap(), plain.unwrap());
    assert_eq!(both.text, plain.text);
    assert!(!both.text.is_empty());
    assert_eq!((both.labels.len(), plain.labels.len()), (1, 0));
    assert!(case.error(&both.labels[0]).is_within(Error::F32));
}

#[test]
fn more_than_fits_into_a_pass_is_answered_and_what_does_not_fit_the_model_is_refused() {
    let mut model = load(DtypeChoice::F32);
    let (request, question) = cases()[0].request();
    let questions: Vec<_> =
        (0..40).map(|i| Question { text: format!("{}{i}", question.text), ..question.clone() }).collect();
    let all = labels(&mut *model, Request { questions: questions.clone(), ..request.clone() });
    let last = labels(&mut *model, Request { questions: questions[39..].to_vec(), ..request.clone() });
    for (together, alone) in all[39].iter().zip(&last[0]) {
        assert!((together - alone).abs() < 1e-3, "{together} {alone}");
    }
    let long = Question { text: "word ".repeat(20_000), ..question };
    let refused = model.answer(&[Request { questions: vec![long], ..request }], &mut |_, _| ()).unwrap();
    assert!(
        matches!(&refused[0], Err(DescribeError::Request(why)) if why.contains("shorter text")),
        "{refused:?}"
    );
}
