// Binding lists of any bytes against requests of any text; networks, origins and hosts as anybody may write them.
#include <string>

#include "apikey/binding.hpp"
#include "fuzz_input.hpp"

using apikey::Binding;
using apikey::Outcome;

namespace {

void list(FuzzInput& input) {
  apikey::RequestFacts facts;
  facts.address = apikey::make_address(input.take(input.byte() % 18));
  facts.method = input.value<apikey::MethodSet>();
  facts.origin = input.text();
  facts.referer = input.text();
  facts.host = input.text();
  const auto bytes = input.remaining_bytes();
  auto rest = bytes;
  Binding binding;
  while (apikey::next_binding(rest, binding)) {
    require(binding.kind >= 1 && binding.kind <= 5 && !binding.value.empty());
  }
  const Outcome outcome = apikey::check_bindings(bytes, facts);
  require((outcome == Outcome::unavailable) == !rest.empty());
  require(!bytes.empty() || outcome == Outcome::ok);
}

// Normal forms are normal: normalizing one again changes nothing.
void texts(std::string_view text) {
  std::array<char, apikey::kMaxOriginLength> buffer;
  std::array<char, apikey::kMaxOriginLength> again_buffer;
  std::string_view normal;
  std::string_view again;
  if (apikey::normalize_origin(text, buffer, normal).ok()) {
    require(apikey::normalize_origin(normal, again_buffer, again).ok() && again == normal);
    require(apikey::origin_of(std::string(normal) + "/x?y") == normal);
    require(normal.find('*') != std::string_view::npos || apikey::matches_origin(normal, normal));
  }
  if (apikey::normalize_host(text, buffer, normal).ok()) {
    require(apikey::normalize_host(normal, again_buffer, again).ok() && again == normal);
  }
  apikey::Network network;
  if (apikey::parse_network(text, network).ok()) {
    require(apikey::contains(network, network.address));
    std::array<std::byte, 32> out;
    const auto left = apikey::encode_network(network, out);
    require(!left.empty());
    std::span<const std::byte> entry(out.data(), out.size() - left.size());
    Binding binding;
    require(apikey::next_binding(entry, binding) && entry.empty());
  }
  apikey::MethodSet set = 0;
  require(!apikey::parse_methods(text, set).ok() || set != 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzInput input(data, size);
  if (input.byte() % 2 == 0) {
    list(input);
  } else {
    texts(input.remaining_text());
  }
  return 0;
}
