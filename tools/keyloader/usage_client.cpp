// Speaking to `apikey_usage` over nginx's unix socket, with libcurl. Used by usage_collect.cpp.
// Must never take half an answer for a whole one: each part ends with a line that says so.
#include "usage_client.hpp"

#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <sstream>

namespace keyloader {
namespace {

constexpr std::size_t kMaxAnswer = std::size_t{64} << 20U;
constexpr long kConnectMs = 5'000;
constexpr long kTotalMs = 120'000;
constexpr std::int64_t kVersion = 1;

std::size_t on_body(char* data, std::size_t, std::size_t size, void* out) {
  auto& body = *static_cast<std::string*>(out);
  if (body.size() + size > kMaxAnswer) {
    return 0;
  }
  body.append(data, size);
  return size;
}

[[noreturn]] void not_understood(const std::string& why) {
  throw Failure(
      fmt::format("what nginx sends of its counts is not understood ({}); are keyloader and the module of the "
                  "same version?",
                  why));
}

std::uint64_t number_of(const Json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end() || !found->is_number_unsigned() ||
      found->get<std::uint64_t>() > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
    not_understood(fmt::format("\"{}\" is not a number that can be", name));
  }
  return found->get<std::uint64_t>();
}

Seconds time_of(const Json& object, const char* name) { return static_cast<Seconds>(number_of(object, name)); }

std::array<std::uint8_t, 16> bytes_of(const Json& value, const char* name) {
  const auto bytes = value.is_string() ? bytes16_from_hex(value.get_ref<const std::string&>()) : std::nullopt;
  if (!bytes) {
    not_understood(fmt::format("\"{}\" is not 32 hex digits", name));
  }
  return *bytes;
}

void read_head(const Json& line, UsagePage& page) {
  if (line.value("apikey_usage", Json{}) != kVersion) {
    not_understood("it does not begin with \"apikey_usage\":1");
  }
  page.instance = bytes_of(line.value("instance", Json{}), "instance");
  page.created = time_of(line, "created");
  page.now = time_of(line, "now");
  page.acknowledged_to = time_of(line, "acknowledged_to");
  page.unplaced = number_of(line, "unplaced");
  for (const Json& gap : line.value("gaps", Json::array())) {
    page.gaps.emplace_back(time_of(gap, "from"), time_of(gap, "to"));
  }
}

std::uint64_t row_id(const Json& value) {
  std::uint64_t row = 0;
  const std::string text = value.is_string() ? value.get<std::string>() : std::string{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), row, 16);
  if (text.size() != 16 || error != std::errc{} || end != text.data() + text.size()) {
    not_understood("\"row\" is not 16 hex digits");
  }
  return row;
}

UsageRecord read_row(const Json& line, const UsageInstance& instance) {
  UsageRecord record{.instance = instance};
  for (const auto& [name, value] : line.items()) {
    const auto& names = usage_counter_names();
    const auto counter = std::find(names.begin(), names.end(), name);
    if (counter != names.end()) {
      record.counters.at(static_cast<std::size_t>(counter - names.begin())) = number_of(line, name.c_str());
    } else if (name == "row") {
      record.row = row_id(value);
    } else if (name == "hour") {
      record.hour = time_of(line, "hour");
    } else if (name == "key") {
      const auto id = key_id_from(value.is_string() ? value.get<std::string>() : std::string{});
      if (!id) {
        not_understood("\"key\" is not the id of a key");
      }
      record.key = *id;
    } else if (name == "owner") {
      record.owner = bytes_of(value, "owner");
    } else {
      not_understood(fmt::format("it counts \"{}\"", name));
    }
  }
  if (record.hour % apikey::kUsageHour != 0) {
    not_understood("\"hour\" is not the begin of an hour");
  }
  return record;
}

UsagePage read_page(const std::string& body) {
  UsagePage page;
  std::istringstream lines(body);
  std::string text;
  bool is_whole = false;
  for (std::uint64_t number = 0; std::getline(lines, text); ++number) {
    const Json line = Json::parse(text, nullptr, false);
    if (!line.is_object() || is_whole) {
      not_understood("a line is no JSON object, or stands behind the last one");
    }
    if (number == 0) {
      read_head(line, page);
    } else if (line.contains("rows")) {
      is_whole = number_of(line, "rows") == page.rows.size();
      if (line.contains("next")) {
        page.next = number_of(line, "next");
      }
    } else {
      page.rows.push_back(read_row(line, page.instance));
    }
  }
  if (!is_whole) {
    throw Failure("nginx's answer ends in the middle; nothing of it was kept. Collect again");
  }
  return page;
}

}  // namespace

void UsageClient::Close::operator()(void* handle) const { curl_easy_cleanup(handle); }

UsageClient::UsageClient(const std::string& socket) : socket_(socket), handle_(curl_easy_init()) {
  CURL* curl = handle_.get();
  if (curl == nullptr || curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, socket.c_str()) != CURLE_OK ||
      curl_easy_setopt(curl, CURLOPT_NOPROXY, "*") != CURLE_OK ||
      curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L) != CURLE_OK ||
      curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, kConnectMs) != CURLE_OK ||
      curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, kTotalMs) != CURLE_OK ||
      curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body) != CURLE_OK) {
    throw Failure("libcurl cannot be used");
  }
}

UsageClient::Answer UsageClient::ask(const std::string& query, bool is_post) {
  CURL* curl = handle_.get();
  Answer answer;
  curl_easy_setopt(curl, CURLOPT_URL, ("http://localhost/usage" + query).c_str());
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &answer.body);
  if (is_post) {
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, "");
  } else {
    curl_easy_setopt(curl, CURLOPT_HTTPGET, 1L);
  }
  const CURLcode code = curl_easy_perform(curl);
  if (code == CURLE_COULDNT_CONNECT) {
    throw NotAnswering(fmt::format("nginx does not answer at {}", socket_));
  }
  if (code != CURLE_OK) {
    throw Failure(fmt::format("nginx's answer at {} broke off: {}", socket_, curl_easy_strerror(code)));
  }
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &answer.status);
  return answer;
}

UsagePage UsageClient::read(std::uint64_t from) {
  const Answer answer = ask(fmt::format("?from={}", from), false);
  if (answer.status != 200) {
    throw Failure(fmt::format("nginx answers {} at {}/usage; the location there has to say `apikey_usage;`",
                              answer.status, socket_));
  }
  return read_page(answer.body);
}

std::string UsageClient::acknowledge(const UsageInstance& instance, Seconds to) {
  const Answer answer = ask(fmt::format("?acknowledge={}:{}", hex(instance), to - apikey::kUsageHour), true);
  if (answer.status == 200) {
    return {};
  }
  const Json json = Json::parse(answer.body, nullptr, false);
  return json.is_object() && json.contains("error") && json["error"].is_string()
             ? json["error"].get<std::string>()
             : fmt::format("nginx answers {}", answer.status);
}

}  // namespace keyloader
