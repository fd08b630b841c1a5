// Rates, bursts, key ids and meta values of any text: what is taken is in bounds, and written back is the same.
#include <string>

#include "apikey/key_id.hpp"
#include "apikey/meta.hpp"
#include "apikey/rate_spec.hpp"
#include "fuzz_input.hpp"

namespace {

void rate(std::string_view text) {
  apikey::Rate rate;
  if (apikey::parse_rate(text, rate).ok()) {
    require(rate.amount >= 1 && rate.amount <= apikey::kMaxRateAmount && rate.period_ns >= apikey::kNsPerSecond);
    const char* unit = rate.period_ns == apikey::kNsPerSecond ? "s" : text.ends_with('m') ? "m" : "h";
    apikey::Rate again;
    require(apikey::parse_rate(std::to_string(rate.amount) + "r/" + unit, again).ok() && again == rate);
    require(apikey::default_burst(rate) >= 1);
  }
  std::uint64_t burst = 0;
  require(!apikey::parse_burst(text, burst).ok() || (burst >= 1 && burst <= apikey::kMaxBurst));
}

void key_id(std::string_view text) {
  apikey::KeyId id;
  if (apikey::parse_key_id(text, id)) {
    const auto again = apikey::key_id_text(id);
    require(text == std::string_view(again.data(), again.size()));
  }
}

void meta(std::string_view name, std::string_view value) {
  apikey::Meta meta;
  const apikey::Status status = apikey::set_meta(meta, name, value);
  std::array<char, 64> out;
  require(apikey::describe(status, out).size() <= out.size());
  require(meta.digest_count <= apikey::kMaxDigestMethods);
  require(!apikey::check_meta(meta).ok());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzInput input(data, size);
  const std::string_view name = input.text();
  const std::string_view text = input.remaining_text();
  rate(text);
  key_id(text);
  meta(name, text);
  return 0;
}
