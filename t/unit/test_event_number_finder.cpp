// event_number_finder.cpp: the last figure of a stream of events, however it is cut into pieces.
#include "apikey/event_number_finder.hpp"

#include <string>

#include "cmocka_cpp.hpp"

using apikey::EventNumberFinder;
using apikey::Figure;
using apikey::FigureStatus;

namespace {

Figure find(const apikey::NumberPath& path, std::string_view text, std::size_t first_piece, std::size_t piece) {
  EventNumberFinder finder(path);
  finder.feed(text.substr(0, first_piece));
  for (std::size_t at = first_piece; at < text.size(); at += piece) {
    finder.feed(text.substr(at, piece));
  }
  return finder.finish();
}

// Cut in two at every place, and into single bytes.
void expect(std::string_view text, FigureStatus status, std::uint64_t value = 0) {
  apikey::NumberPath path;
  assert_true(parse_number_path("usage.n", path).ok());
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    for (const std::size_t piece : {text.size() + 1, std::size_t{1}}) {
      const Figure figure = find(path, text, cut, piece);
      if (figure.status != status || figure.value != value) {
        print_error("%.*s\ncut at %zu: status %d, value %llu\n", static_cast<int>(text.size()), text.data(), cut,
                    static_cast<int>(figure.status), static_cast<unsigned long long>(figure.value));
        assert_true(false);
      }
    }
  }
}

void expect_found(std::string_view text, std::uint64_t value) { expect(text, FigureStatus::found, value); }

void a_stream_of_chat_completion_chunks(void**) {
  expect_found(
      "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}],\"usage\":null}\n\n"
      "data: {\"choices\":[{\"delta\":{\"content\":\"\\\"usage\\\":{\\\"n\\\":99}\"}}],\"usage\":null}\n\n"
      "data: {\"choices\":[],\"usage\":{\"n\":21}}\n\n"
      "data: [DONE]\n\n",
      21);
}

// `|` stands for the end of a line.
std::string with_line_ends(std::string_view text, std::string_view end) {
  std::string lines;
  for (const char c : text) {
    lines.append(c == '|' ? end : std::string_view(&c, 1));
  }
  return lines;
}

void every_end_of_line(void**) {
  for (const std::string_view end : {"\n", "\r", "\r\n"}) {
    expect_found(with_line_ends(R"(data: {"usage":{"n":1}}||data: {"usage":{"n":2}}||)", end), 2);
    expect_found(with_line_ends(R"(data: {"usage":|data: {"n":3}}||)", end), 3);
    expect_found(with_line_ends(R"(||data: {"usage":{"n":4}}|||)", end), 4);
  }
  expect_found("data: {\"usage\":\rdata:{\"n\":\r\ndata:5}}\n\n", 5);
}

void the_last_figure_counts(void**) {
  expect_found("data: {\"usage\":{\"n\":1}}\n\ndata: {\"usage\":{\"n\":7}}\n\ndata: {\"x\":1}\n\ndata: text\n\n", 7);
  expect_found("data: {\"usage\":{\"n\":7}}\n\ndata: {\"usage\":{\"n\":\"x\"}}\n\ndata: {\"usage\":null}\n\n", 7);
  expect_found("data: {\"usage\":{\"n\":\"x\"}}\n\ndata: {\"usage\":{\"n\":7}}\n\n", 7);
}

void data_lines_join(void**) {
  expect_found("data: {\ndata: \"usage\"\ndata\ndata:\ndata: :{\"n\"\ndata: : 6 }\ndata: }\n\n", 6);
  // A number or a string cannot go over a line.
  expect("data: {\"usage\":{\"n\":1\ndata: 2}}\n\n", FigureStatus::absent);
  expect("data: {\"usa\ndata: ge\":{\"n\":2}}\n\n", FigureStatus::absent);
}

void other_lines_between(void**) {
  expect_found(": comment\nevent: usage\nid: 1\ndata: {\"usage\":\n: more\nretry: 5\nretry\ndata: {\"n\":3}}\n\n", 3);
  expect_found("data:{\"usage\":{\"n\":3}}\n\n", 3);
  expect_found("data:  {\"usage\":{\"n\":3}}\n\n", 3);
  expect("datax: {\"usage\":{\"n\":3}}\n\n", FigureStatus::absent);
  expect("dat: {\"usage\":{\"n\":3}}\n\n", FigureStatus::absent);
  expect(" data: {\"usage\":{\"n\":3}}\n\n", FigureStatus::absent);
  expect("Data: {\"usage\":{\"n\":3}}\n\n", FigureStatus::absent);
  expect("data : {\"usage\":{\"n\":3}}\n\n", FigureStatus::absent);
  expect("{\"usage\":{\"n\":3}}", FigureStatus::absent);
}

void byte_order_marks(void**) {
  expect_found(
      "\xef\xbb\xbf"
      "data: {\"usage\":{\"n\":3}}\n\n",
      3);
  expect_found(
      "\xef\xbb\xbf\n"
      "data: {\"usage\":{\"n\":3}}\n\n",
      3);
  expect(
      "\xef\xbb"
      "data: {\"usage\":{\"n\":3}}\n\n",
      FigureStatus::absent);
  expect(
      "\xef\xbb\xbf\xef\xbb\xbf"
      "data: {\"usage\":{\"n\":3}}\n\n",
      FigureStatus::absent);
  expect(
      "\n\xef\xbb\xbf"
      "data: {\"usage\":{\"n\":3}}\n\n",
      FigureStatus::absent);
}

void a_stream_that_was_cut_off(void**) {
  expect_found("data: {\"usage\":{\"n\":3}}", 3);
  expect_found("data: {\"usage\":{\"n\":3}}\n", 3);
  expect_found("data: {\"usage\":{\"n\":3},\"tex", 3);
  expect("data: {\"usage\":{\"n\":3", FigureStatus::absent);
  expect_found("data: {\"usage\":{\"n\":1}}\n\ndata: {\"usage\":{\"n\":3", 1);
}

void events_that_are_no_json(void**) {
  // An event that ended is whole: half an object is none.
  expect("data: {\"usage\":{\"n\":3}\n\n", FigureStatus::absent);
  expect("data: {\"usage\":{\"n\":3}}x\n\n", FigureStatus::absent);
  expect("data: [DONE]\n\n", FigureStatus::absent);
  expect("data\n\ndata:\n\n", FigureStatus::absent);
  expect("data: {\"usage\":{\"n\":-3}}\n\n", FigureStatus::not_a_number);
  expect("data: {\"usage\":{\"n\":-3}}\n\ndata: {}\n\n", FigureStatus::not_a_number);
  expect("", FigureStatus::absent);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(a_stream_of_chat_completion_chunks),
      cmocka_unit_test(every_end_of_line),
      cmocka_unit_test(the_last_figure_counts),
      cmocka_unit_test(data_lines_join),
      cmocka_unit_test(other_lines_between),
      cmocka_unit_test(byte_order_marks),
      cmocka_unit_test(a_stream_that_was_cut_off),
      cmocka_unit_test(events_that_are_no_json),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
