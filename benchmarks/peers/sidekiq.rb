# Sidekiq: a job, `perform_async` and `perform_bulk`. Run by sidekiq.py; contract.py says what is in the environment.

require 'json'
require 'logger'
begin
  require 'redis/connection/hiredis' # Sidekiq 6 takes the driver that was loaded last
rescue LoadError
  begin
    require 'hiredis-client' # Sidekiq 7 and later
  rescue LoadError
    nil # then replies are parsed in Ruby, and the version that setup.py reports names no hiredis
  end
end
require 'sidekiq'

Sidekiq.configure_server { |config| config.logger.level = Logger::WARN }
Sidekiq.configure_client { |config| config.logger.level = Logger::WARN }

class Handle
  include Sidekiq::Job

  RECORD = File.open(ENV.fetch('PEERS_RECORD'), File::WRONLY | File::APPEND | File::CREAT)
  HOLD = ENV.fetch('PEERS_HOLD', '0').to_f

  def perform(item)
    RECORD.syswrite([Process.clock_gettime(Process::CLOCK_MONOTONIC), item].pack('Eq<'))
    sleep HOLD if HOLD > 0
  end
end

if $PROGRAM_NAME == __FILE__
  first, count = ARGV[1..].map(&:to_i)
  pace = ENV.fetch('PEERS_PACE', '0').to_f
  Sidekiq.redis { |connection| connection.call('PING') }
  start = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  if ENV['PEERS_MODE'].include?('perform_bulk')
    (first...(first + count)).each_slice(100) { |items| Handle.perform_bulk(items.zip) }
  else
    (first...(first + count)).each do |item|
      Handle.perform_async(item)
      sleep pace if pace > 0
    end
  end
  puts JSON.generate(seconds: Process.clock_gettime(Process::CLOCK_MONOTONIC) - start)
end
