// Bodies of any bytes: the same figure however they are cut into pieces, and that of an independent reading.
#include <nlohmann/json.hpp>
#include <string>

#include "apikey/event_number_finder.hpp"
#include "fuzz_input.hpp"

namespace {

using apikey::Figure;
using apikey::FigureStatus;

bool is_same(const Figure& a, const Figure& b) { return a.status == b.status && a.value == b.value; }

// Pieces of changing sizes, taken from `seed`.
template <typename Finder>
void feed(Finder& finder, std::string_view text, std::uint64_t seed) {
  while (!text.empty()) {
    seed = seed * 6364136223846793005U + 1442695040888963407U;
    const std::size_t length = std::min<std::size_t>(text.size(), 1 + (seed >> 33) % 9);
    finder.feed(text.substr(0, length));
    text.remove_prefix(length);
  }
}

// nlohmann-json ends at a zero byte, takes a byte order mark, and nests as deep as memory allows.
bool is_read_otherwise(std::string_view text) {
  const auto opens = [](char c) { return c == '[' || c == '{'; };
  return text.find('\0') != std::string_view::npos || text.starts_with('\xef') ||
         std::count_if(text.begin(), text.end(), opens) > static_cast<std::ptrdiff_t>(apikey::NumberFinder::kMaxDepth);
}

// The object's member at the path, where nlohmann-json can read the text; it refuses more than we do.
void compare_with_reference(const apikey::NumberPath& path, std::string_view text, const Figure& figure) {
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (json.is_discarded()) {
    return;
  }
  require(figure.status != FigureStatus::not_json);
  const nlohmann::json* at = &json;
  for (std::size_t i = 0; i < path.count && at != nullptr; ++i) {
    const auto member = at->is_object() ? at->find(std::string(path.names[i])) : at->end();
    at = at->is_object() && member != at->end() ? &*member : nullptr;
  }
  require((figure.status == FigureStatus::absent) == (at == nullptr || at->is_null()));
  if (figure.status == FigureStatus::found) {
    require(at->is_number() && figure.value <= apikey::kMaxFigure);
    require(!at->is_number_unsigned() || at->get<std::uint64_t>() == figure.value);
  } else if (figure.status == FigureStatus::too_large) {
    require(at->is_number_float() || (at->is_number_unsigned() && at->get<std::uint64_t>() > apikey::kMaxFigure));
  } else if (figure.status == FigureStatus::not_a_number) {
    require(!at->is_number_unsigned());
  }
}

void body(const apikey::NumberPath& path, std::string_view text, std::uint64_t seed) {
  apikey::NumberFinder whole(path);
  apikey::NumberFinder pieces(path);
  whole.feed(text);
  feed(pieces, text, seed);
  require(is_same(apikey::NumberFinder(whole).finish(false), apikey::NumberFinder(pieces).finish(false)));
  const Figure figure = whole.finish(true);
  require(is_same(figure, pieces.finish(true)));
  if (!is_read_otherwise(text)) {
    compare_with_reference(path, text, figure);
  }
}

void events(const apikey::NumberPath& path, std::string_view text, std::uint64_t seed) {
  apikey::EventNumberFinder whole(path);
  apikey::EventNumberFinder pieces(path);
  whole.feed(text);
  feed(pieces, text, seed);
  const Figure figure = whole.finish();
  require(is_same(figure, pieces.finish()));
  require(figure.status != FigureStatus::not_json);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzInput input(data, size);
  const auto seed = input.value<std::uint64_t>();
  apikey::NumberPath path;
  if (!parse_number_path(input.text(), path).ok() && !parse_number_path("usage.n", path).ok()) {
    return 0;
  }
  const std::string_view text = input.remaining_text();
  static_cast<void>(apikey::parse_figure(text));
  body(path, text, seed);
  events(path, text, seed);
  return 0;
}
