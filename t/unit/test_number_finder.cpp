// number_finder.cpp: the number at a path, however the body is cut into pieces, and the same as nlohmann-json finds.
#include "apikey/number_finder.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "cmocka_cpp.hpp"
#include "expect_text.hpp"

using apikey::Figure;
using apikey::FigureStatus;
using apikey::NumberFinder;
using apikey::NumberPath;
using apikey::parse_number_path;
using Json = nlohmann::json;

namespace {

NumberPath path_of(std::string_view text) {
  NumberPath path;
  assert_true(parse_number_path(text, path).ok());
  return path;
}

Figure find(const NumberPath& path, std::string_view text, std::size_t first_piece, std::size_t piece,
            bool is_whole = true) {
  NumberFinder finder(path);
  finder.feed(text.substr(0, first_piece));
  for (std::size_t at = first_piece; at < text.size(); at += piece) {
    finder.feed(text.substr(at, piece));
  }
  return finder.finish(is_whole);
}

bool is_same(const Figure& a, const Figure& b) { return a.status == b.status && a.value == b.value; }

// Cut in two at every place, and into single bytes.
void expect_found(std::string_view path_text, std::string_view text, Figure expected, bool is_whole = true) {
  const NumberPath path = path_of(path_text);
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    for (const std::size_t piece : {text.size() + 1, std::size_t{1}}) {
      const Figure figure = find(path, text, cut, piece, is_whole);
      if (!is_same(figure, expected)) {
        print_error("%.*s cut at %zu: status %d, value %llu\n", static_cast<int>(text.size()), text.data(), cut,
                    static_cast<int>(figure.status), static_cast<unsigned long long>(figure.value));
        assert_true(false);
      }
    }
  }
}

constexpr Figure found(std::uint64_t value) { return {FigureStatus::found, value}; }
constexpr Figure kAbsent{FigureStatus::absent, 0};
constexpr Figure kNotANumber{FigureStatus::not_a_number, 0};
constexpr Figure kTooLarge{FigureStatus::too_large, 0};
constexpr Figure kNotJson{FigureStatus::not_json, 0};

void paths(void**) {
  std::array<char, 160> buffer;
  const NumberPath path = path_of("usage.total_tokens");
  assert_int_equal(path.count, 2);
  expect_text(path.names[0], "usage");
  expect_text(path.names[1], "total_tokens");
  assert_int_equal(path_of("a").count, 1);
  assert_int_equal(path_of("a.b.c.d.e.f.g.h").count, 8);
  NumberPath other;
  for (const std::string_view bad : {"", ".", "a.", ".a", "a..b"}) {
    expect_text(describe(parse_number_path(bad, other), buffer),
                "a path is made of member names of 1 to 128 bytes with dots between them");
  }
  assert_false(parse_number_path(std::string(129, 'a'), other).ok());
  assert_true(parse_number_path(std::string(128, 'a'), other).ok());
  expect_text(describe(parse_number_path("a.b.c.d.e.f.g.h.i", other), buffer), "a path has at most 8 member names");
}

void a_chat_completion(void**) {
  expect_found("usage.total_tokens",
               R"({"id":"c1","choices":[{"index":0,"message":{"role":"assistant","content":"Hi \"there\" \\"},)"
               R"("finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21}})",
               found(21));
  expect_found("usage.total_tokens", "{ \"usage\" :\r\n\t{ \"total_tokens\" : 7 } } \n", found(7));
}

void depths_of_paths(void**) {
  expect_found("n", R"({"n":5})", found(5));
  expect_found("a.b.c.d.e.f.g.h", R"({"a":{"b":{"c":{"d":{"e":{"f":{"g":{"h":8}}}}}}}})", found(8));
  expect_found("b.n", R"({"a":{"n":1,"b":{"n":2}},"b":{"n":3},"n":4})", found(3));
}

void what_only_looks_like_it(void**) {
  expect_found("usage.total_tokens", R"({"content":"\"usage\":{\"total_tokens\":9}","x":1})", kAbsent);
  expect_found("usage.total_tokens", R"({"content":"{\"usage\":{\"total_tokens\":9}}\\","usage":{"total_tokens":4}})",
               found(4));
  expect_found("usage.total_tokens", R"({"total_tokens":1,"usage":{"x":{"total_tokens":2}},"x":{"usage":{}}})",
               kAbsent);
  expect_found("usage.total_tokens", R"({"x":{"usage":{"total_tokens":2}}})", kAbsent);
  expect_found("usage.total_tokens", R"({"usag":{"total_tokens":2},"usagee":{"total_tokens":2},"USAGE":{}})", kAbsent);
  expect_found("usage.total_tokens", R"({"usage":{"total_tokens":{"total_tokens":2}}})", kNotANumber);
}

void arrays_are_not_entered(void**) {
  expect_found("usage.n", R"([{"usage":{"n":1}}])", kAbsent);
  expect_found("usage.n", R"({"usage":[{"n":1}]})", kAbsent);
  expect_found("usage.n", R"({"usage":{"n":[1]}})", kNotANumber);
  expect_found("usage.n", R"({"a":[[],[{}],{"b":[]}],"usage":{"n":1}})", found(1));
}

void the_last_of_two_counts(void**) {
  expect_found("u.n", R"({"u":{"n":1,"n":2}})", found(2));
  expect_found("u.n", R"({"u":{"n":1},"u":{"n":2}})", found(2));
  expect_found("u.n", R"({"u":{"n":1},"u":{}})", kAbsent);
  expect_found("u.n", R"({"u":{"n":1},"u":5})", kAbsent);
  expect_found("u.n", R"({"u":{"n":1},"u":null})", kAbsent);
  expect_found("u.n", R"({"u":{"n":1,"n":"x"}})", kNotANumber);
  expect_found("u.n", R"({"u":{"n":"x","n":1}})", found(1));
}

void escaped_names(void**) {
  expect_found("usage.n", R"({"\u0075s\u0061ge":{"\u006E":3}})", found(3));
  expect_found("a/b.n", R"({"a\/b":{"n":3}})", found(3));
  expect_found("\xc3\xa9.\xe2\x82\xac", R"({"\u00e9":{"\u20AC":3}})", found(3));
  expect_found("\xf0\x9f\x98\x80", R"({"\uD83D\ude00":3})", found(3));
  expect_found("\xf0\x9f\x98\x80", "{\"\xf0\x9f\x98\x80\":3}", found(3));
  for (const std::string_view lone :
       {R"({"\ud83d":3})", R"({"\ude00":3})", R"({"\ud83dn":3})", R"({"n\ud83d":3})", R"({"\ud83d\u006e":3})",
        R"({"\ud83d\ud83d\ude00n":3})", R"({"\ud83d\n":3})", R"({"n\u0000":3})"}) {
    expect_found("n", lone, kAbsent);
  }
}

void values_that_are_no_figure(void**) {
  for (const std::string_view value : {"\"5\"", "true", "false", "{}", "[]", "[5]", "-1"}) {
    expect_found("n", R"({"n":)" + std::string(value) + "}", kNotANumber);
  }
  expect_found("n", R"({"n":1000000000001})", kTooLarge);
  expect_found("n", R"({"n":1e13})", kTooLarge);
  expect_found("n", R"({"n":null})", kAbsent);
  expect_found("n", R"({"n":1.5})", found(2));
  expect_found("n", R"({"n":1e3})", found(1000));
  expect_found("n", R"({"n":-0})", found(0));
}

void what_is_no_json(void**) {
  for (const std::string_view text : {"<html>{\"n\":1}</html>",
                                      "{\"n\":1}x",
                                      "{\"n\":1}{}",
                                      "{\"n\":1},",
                                      "x{\"n\":1}",
                                      "{\"n\":01}",
                                      "{\"n\":1.}",
                                      "{\"n\":+1}",
                                      "{\"n\":.5}",
                                      "{\"n\":1,}",
                                      "{,\"n\":1}",
                                      "{\"n\" 1}",
                                      "{\"n\"::1}",
                                      "{\"n\":1 2}",
                                      "{'n':1}",
                                      "{n:1}",
                                      "{\"n\":1]",
                                      "[1}",
                                      "[1,]",
                                      "[,1]",
                                      "{\"n\":tru}",
                                      "{\"n\":truee}",
                                      "{\"n\":nul}",
                                      "{\"n\":NaN}",
                                      "{\"n\":1",
                                      "{\"n\":",
                                      "{\"n\"",
                                      "{\"n",
                                      "{",
                                      "[",
                                      "\"",
                                      "tru",
                                      "{\"n\":1,\"a\":\"\\x\"}",
                                      "{\"n\":1,\"a\":\"\\u12g4\"}",
                                      "{\"n\":1,\"a\":\"\n\"}",
                                      "{\"n\":1} /* */",
                                      "]",
                                      "}",
                                      ":",
                                      ",",
                                      "--1",
                                      "[DONE]"}) {
    expect_found("n", text, kNotJson);
  }
  for (const std::string_view text : {"5", "\"n\"", "null", "[]", "{}", "[1,2]", "", "  \n", "-5.5e-5 "}) {
    expect_found("n", text, kAbsent);
  }
}

void a_body_that_was_cut_off(void**) {
  expect_found("u.n", R"({"u":{"n":12},"text":"and the)", found(12), false);
  expect_found("u.n", R"({"u":{"n":12)", kAbsent, false);
  expect_found("u.n", R"({"u":{"n":12})", found(12), false);
  expect_found("u.n", R"({"u":{"n":12},})", kNotJson, false);
  expect_found("u.n", "", kAbsent, false);
}

void deep_nesting(void**) {
  const auto nested = [](std::size_t depth) {
    return R"({"x":)" + std::string(depth, '[') + std::string(depth, ']') + R"(,"n":6})";
  };
  expect_found("n", nested(NumberFinder::kMaxDepth - 1), found(6));
  expect_found("n", nested(NumberFinder::kMaxDepth), kNotJson);
  std::string objects;
  for (std::size_t i = 0; i < 200; ++i) {
    objects += R"({"n":)";
  }
  expect_found("n.n.n", objects + "1" + std::string(200, '}'), kNotANumber);
}

// What nlohmann-json finds. The numbers made below have so few digits that a double rounds up as we do.
Figure reference(const NumberPath& path, const Json& json) {
  const Json* at = &json;
  for (std::size_t i = 0; i < path.count; ++i) {
    const auto member = at->is_object() ? at->find(std::string(path.names[i])) : at->end();
    if (!at->is_object() || member == at->end()) {
      return kAbsent;
    }
    at = &*member;
  }
  if (at->is_null()) {
    return kAbsent;
  }
  if (!at->is_number() || at->get<double>() < 0) {
    return kNotANumber;
  }
  const double value = std::ceil(at->get<double>());
  return value > static_cast<double>(apikey::kMaxFigure) ? kTooLarge : found(static_cast<std::uint64_t>(value));
}

class Generator {
 public:
  explicit Generator(unsigned seed) : random_(seed) {}

  std::size_t below(std::size_t n) { return random_() % n; }

  Json value(unsigned depth) {
    switch (below(depth == 0 ? 5 : 10)) {
      case 0:
        return nullptr;
      case 1:
        return below(2) == 0;
      case 2:
        return name() + "\"usage\":{\"n\":1}\n\\" + name();
      case 3:
        return -static_cast<int>(below(3)) - 1;
      case 4:
        return below(2'000'000'000'000);
      case 5: {
        Json array = Json::array();
        for (std::size_t i = below(4); i > 0; --i) {
          array.push_back(value(depth - 1));
        }
        return array;
      }
      default:
        return object(depth - 1);
    }
  }

  Json object(unsigned depth) {
    Json object = Json::object();
    for (std::size_t i = below(6); i > 0; --i) {
      object[name()] = value(depth);
    }
    return object;
  }

  // Few names, so that the path is met often, in full and in part.
  std::string name() {
    static const std::vector<std::string> names{"usage", "n", "usage", "n", "u", "", "\xc3\xa9", "\xf0\x9f\x98\x80"};
    return names[below(names.size())];
  }

  // One byte more, less or other.
  void damage(std::string& text) {
    static constexpr std::string_view bytes = "{}[]\",:\\ 0129.eE+-tnu\n\x01/";
    const std::size_t at = below(text.size() + 1);
    const char byte = bytes[below(bytes.size())];
    if (at == text.size() || below(3) == 0) {
      text.insert(text.begin() + static_cast<std::ptrdiff_t>(at), byte);
    } else if (below(2) == 0) {
      text[at] = byte;
    } else {
      text.erase(at, 1);
    }
  }

 private:
  std::mt19937 random_;
};

// nlohmann-json refuses numbers that no double can hold, lone surrogates and bytes that are not UTF-8.
bool may_be_refused(std::string_view text) {
  const auto has_exponent = [](char a, char b) { return a >= '0' && a <= '9' && (b == 'e' || b == 'E'); };
  return text.find('\\') != std::string_view::npos ||
         std::any_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) > 0x7f; }) ||
         std::adjacent_find(text.begin(), text.end(), has_exponent) != text.end();
}

// One in four damaged. RETURNS: how many figures were found; 0 where the two disagree.
std::size_t compare_many(Generator& random, const NumberPath& path, std::size_t count) {
  std::size_t figures = 0;
  for (std::size_t i = 0; i < count; ++i) {
    std::string text = (random.below(4) == 0 ? random.value(5) : random.object(5))
                           .dump(random.below(2) == 0 ? -1 : 1, ' ', random.below(2) == 0);
    for (std::size_t damages = random.below(4); damages > 2; --damages) {
      random.damage(text);
    }
    const Json json = Json::parse(text, nullptr, false);
    const Figure figure = find(path, text, random.below(text.size() + 1), 1 + random.below(7));
    const Figure expected = json.is_discarded() ? kNotJson : reference(path, json);
    const bool may_differ = json.is_discarded() && may_be_refused(text);
    if (!is_same(figure, expected) && !may_differ) {
      print_error("%s\nstatus %d, value %llu\n", text.c_str(), static_cast<int>(figure.status),
                  static_cast<unsigned long long>(figure.value));
      return 0;
    }
    figures += figure.status == FigureStatus::found ? 1 : 0;
  }
  return figures;
}

void the_same_as_nlohmann_json(void**) {
  Generator random(20);
  for (const std::string_view text : {"n", "usage.n", "usage.usage.n", "\xc3\xa9.n", "u.\xf0\x9f\x98\x80"}) {
    const std::size_t figures = compare_many(random, path_of(text), 50'000);
    assert_true(figures > 20);
  }
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(paths),
      cmocka_unit_test(a_chat_completion),
      cmocka_unit_test(depths_of_paths),
      cmocka_unit_test(what_only_looks_like_it),
      cmocka_unit_test(arrays_are_not_entered),
      cmocka_unit_test(the_last_of_two_counts),
      cmocka_unit_test(escaped_names),
      cmocka_unit_test(values_that_are_no_figure),
      cmocka_unit_test(what_is_no_json),
      cmocka_unit_test(a_body_that_was_cut_off),
      cmocka_unit_test(deep_nesting),
      cmocka_unit_test(the_same_as_nlohmann_json),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
